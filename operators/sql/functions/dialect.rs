//! What Flink and Kinesis Analytics write differently, rewritten in the syntax tree before anything else looks at it.
//!
//! Rewriting expressions keeps DataFusion's own rules for types and NULLs, which a function beside its operators
//! would have to repeat. Names inside the arguments keep their places in the text, so errors still point there.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned,
    Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::accessors::{Accessor, accessor};
use super::templates::{RENAMED, TEMPLATES, UNITS, WITH_UNIT};

/// Functions of DataFusion whose second argument is a format of `strftime`.
const WITH_FORMAT: [&str; 4] = ["to_char", "date_format", "to_timestamp", "to_date"];

/// What came up while rewriting.
#[derive(Default)]
pub(in crate::sql) struct Rewritten {
    /// What cannot be rewritten, and where.
    pub refused: Vec<(Span, String)>,
    /// Calls such as `TUMBLE_START(…)`, to be compared with the window once it is known.
    pub accessors: Vec<Accessor>,
}

/// Rewrites the statement's expressions.
pub(in crate::sql) fn rewrite(statement: &mut Statement) -> Rewritten {
    let mut rewritten = Rewritten::default();
    if let Statement::Statement(statement) = statement {
        let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
            rewritten.expression(expr);
            ControlFlow::Continue(())
        });
    }
    rewritten
}

impl Rewritten {
    fn expression(&mut self, expr: &mut Expr) {
        let with = match expr {
            Expr::Function(function) => self.function(function),
            Expr::Floor {
                expr,
                field: CeilFloorKind::DateTimeField(field),
            } if *field != DateTimeField::NoDateTime => {
                let unit = field.to_string().to_lowercase();
                Some(expand("date_trunc('$unit', $1)", &[(**expr).clone()], &unit))
            }
            _ => None,
        };
        match with {
            Some(Ok(with)) => *expr = with,
            Some(Err(e)) => self
                .refused
                .push((expr.span(), format!("{expr} cannot be rewritten: {e}"))),
            None => {}
        }
    }

    /// What stands for a call; nothing where it stays.
    fn function(&mut self, function: &mut Function) -> Option<Result<Expr, ParserError>> {
        let name = function.name.to_string().to_lowercase();
        let span = function.name.span();
        let arguments = plain_arguments(function)?;
        if let Some((with, accessor)) = accessor(&name, &arguments, span) {
            self.accessors.push(accessor);
            rename(function, with);
            if let FunctionArguments::List(list) = &mut function.args {
                list.args.clear();
            }
            return None;
        }
        if let Some((_, known_as)) = RENAMED.iter().find(|(other, _)| *other == name) {
            rename(function, known_as);
            return None;
        }
        self.check_format(&name, &arguments, span);
        let takes = |(known, ..): &&(&str, usize, &str)| *known == name;
        if function.filter.is_some() || function.over.is_some() {
            return None;
        }
        let known: Vec<_> = TEMPLATES.iter().chain(WITH_UNIT).filter(takes).collect();
        let Some((_, _, template)) = known.iter().find(|(_, count, _)| *count == arguments.len()) else {
            if let Some((_, count, _)) = known.first() {
                let message = format!("{name}() takes {count} arguments, not {}", arguments.len());
                self.refused.push((span, message));
            }
            return None;
        };
        if !template.contains("$unit") {
            return Some(expand(template, &arguments, ""));
        }
        match unit(&arguments[0]) {
            Some(micros) => Some(expand(template, &arguments, &micros.to_string())),
            None => {
                let units: Vec<&str> = UNITS.iter().map(|(unit, _)| *unit).collect();
                let message = format!(
                    "{name}() counts in one of {}, not in {}",
                    units.join(", "),
                    arguments[0]
                );
                self.refused.push((span, message));
                None
            }
        }
    }

    /// Formats have percent signs here. A format of Java's would come out as it is in every row, or fit none.
    fn check_format(&mut self, name: &str, arguments: &[Expr], span: Span) {
        let format = arguments
            .get(1)
            .and_then(text)
            .filter(|_| WITH_FORMAT.contains(&name));
        if let Some(format) = format.filter(|format| !format.contains('%')) {
            let message = format!(
                "{name}() has no place for a time in the format {format:?}; write for example '%Y-%m-%d %H:%M:%S'"
            );
            self.refused.push((span, message));
        }
    }
}

/// The arguments, if they are nothing but expressions.
fn plain_arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// Gives a call another name, in the same place.
fn rename(function: &mut Function, name: &str) {
    for ident in function.name.0.iter_mut() {
        if let datafusion::sql::sqlparser::ast::ObjectNamePart::Identifier(ident) = ident {
            name.clone_into(&mut ident.value);
            ident.quote_style = None;
        }
    }
}

/// The expression of a template, with its `$1` and so on replaced.
fn expand(template: &str, arguments: &[Expr], unit: &str) -> Result<Expr, ParserError> {
    let text = template.replace("$unit", unit);
    let mut expr = Parser::new(&GenericDialect {})
        .try_with_sql(&text)?
        .parse_expr()?;
    let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |part| {
        if let Some(argument) = placeholder(part).and_then(|number| arguments.get(number - 1)) {
            *part = Expr::Nested(Box::new(argument.clone()));
        }
        ControlFlow::Continue(())
    });
    Ok(expr)
}

fn placeholder(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else {
        return None;
    };
    name.strip_prefix('$')?.parse().ok().filter(|number| *number > 0)
}

/// The microseconds of a unit, written as a word or a text.
fn unit(expr: &Expr) -> Option<i64> {
    let name = match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        other => text(other)?.to_owned(),
    };
    let name = name.to_uppercase();
    let name = name.strip_prefix("SQL_TSI_").unwrap_or(&name);
    UNITS
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|(_, micros)| *micros)
}

/// A literal text.
pub(super) fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The names that are rewritten.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let templates = TEMPLATES.iter().chain(WITH_UNIT).map(|(name, ..)| *name);
    let renamed = RENAMED.iter().map(|(name, _)| *name);
    templates.chain(renamed).chain(super::accessors::names())
}

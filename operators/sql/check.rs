//! Refuses queries that cannot run on streams, saying what to write instead and where in the text.
//!
//! Most is seen in the syntax tree, which knows places: statements, tables, functions. What a query over an
//! unwindowed stream may do is seen in the logical plan, because only there is every way to write an
//! aggregate or a join the same.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, Volatility};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, ObjectName, Query, Spanned, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use millstream_engine::sql::{SqlError, SqlRequest, SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::table::ReferenceTable;
use millstream_engine::window::Window;

use super::enrich::joins_row_by_row;
use super::errors::{Text, instead};
use super::functions::dialect;
use crate::window::Panes;

/// A query whose tables and functions are fit for streams.
pub(super) struct Checked {
    /// The query.
    pub statement: Statement,
    /// The tables it reads, in order of appearance.
    pub inputs: Vec<String>,
    /// The reference tables it reads.
    pub references: Vec<String>,
    /// Where the text names each table, as often as it does.
    pub places: Vec<Option<Range<usize>>>,
    /// The window they are all cut by, or none when they are not windowed.
    pub window: Option<Window>,
}

/// Checks the text; finds as many errors as it can.
pub(super) fn check(
    request: &SqlRequest<'_>,
    references: &[ReferenceTable],
    state: &SessionState,
) -> Result<Checked, Vec<SqlError>> {
    let text = Text(request.query);
    let mut statement = one_query(text)?;
    let rewritten = dialect::rewrite(&mut statement);
    let found = Found::of(&statement);
    let mut check = Check {
        request,
        references,
        text,
        state,
        referenced: Vec::new(),
        errors: Vec::new(),
    };
    for (at, message) in &rewritten.refused {
        check.refuse(*at, message.as_str());
    }
    if let Some(at) = found.recursive {
        check.refuse(
            at,
            "a recursive query cannot run on streams; write it without RECURSIVE",
        );
    }
    if found.fetch {
        check.errors.push(SqlError {
            message: "FETCH is not supported; write LIMIT".to_owned(),
            at: find_word(request.query, |word, _| word == "fetch"),
        });
    }
    let tables = check.tables(&statement, &found);
    let window = check.windows(&tables);
    for accessor in &rewritten.accessors {
        let mut cut = tables.iter().map(|(table, _)| *table);
        if let Some(message) = accessor.disagrees(window.as_ref(), &mut cut) {
            check.refuse(accessor.span, message);
        }
    }
    check.functions(&found.functions, window.is_some());
    if !check.errors.is_empty() {
        return Err(check.errors);
    }
    let mut inputs: Vec<String> = Vec::new();
    for (table, _) in &tables {
        if !inputs.contains(&table.name) {
            inputs.push(table.name.clone());
        }
    }
    Ok(Checked {
        references: check.referenced,
        statement,
        inputs,
        places: tables.iter().map(|(_, at)| text.bytes(*at)).collect(),
        window,
    })
}

/// The text as one SELECT.
fn one_query(text: Text<'_>) -> Result<Statement, Vec<SqlError>> {
    let everything = |message: &str| {
        let start = text.0.len() - text.0.trim_start().len();
        vec![SqlError {
            message: message.to_owned(),
            at: (!text.0.trim().is_empty()).then(|| start..text.0.trim_end().len()),
        }]
    };
    let mut statements = DFParser::parse_sql(text.0).map_err(|e| vec![text.error(&e)])?;
    if statements.len() > 1 {
        return Err(everything(
            "this is several statements; write one SELECT, and a [sql.NAME] for each more",
        ));
    }
    let Some(statement) = statements.pop_front() else {
        return Err(everything("the query is empty; write a SELECT"));
    };
    match &statement {
        Statement::Statement(s) if matches!(s.as_ref(), SqlStatement::Query(_)) => Ok(statement),
        _ => Err(everything(
            "only a SELECT can run on streams; where results go is said by a [sink.NAME], not by a statement",
        )),
    }
}

/// What the syntax tree holds, with places.
#[derive(Default)]
struct Found {
    relations: Vec<ObjectName>,
    table_functions: HashSet<String>,
    functions: Vec<Function>,
    recursive: Option<datafusion::sql::sqlparser::tokenizer::Span>,
    fetch: bool,
}

impl Found {
    fn of(statement: &Statement) -> Found {
        let mut found = Found::default();
        if let Statement::Statement(statement) = statement {
            let _: ControlFlow<()> = statement.visit(&mut found);
        }
        found
    }
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            self.recursive = Some(with.span());
        }
        self.fetch |= query.fetch.is_some();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.relations.push(relation.clone());
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name, args: Some(_), ..
        } = factor
        {
            self.table_functions.insert(table_name(name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.functions.push(function.clone());
        }
        ControlFlow::Continue(())
    }
}

/// The name of a table or function as DataFusion looks it up: lower case unless quoted.
fn table_name(name: &ObjectName) -> String {
    let part = |ident: &datafusion::sql::sqlparser::ast::Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    let parts = name.0.iter().filter_map(|p| p.as_ident()).map(part);
    parts.collect::<Vec<_>>().join(".")
}

struct Check<'a> {
    request: &'a SqlRequest<'a>,
    references: &'a [ReferenceTable],
    text: Text<'a>,
    state: &'a SessionState,
    /// The reference tables that were found.
    referenced: Vec<String>,
    errors: Vec<SqlError>,
}

impl<'a> Check<'a> {
    /// One mistake is one message: what comes second about the same place is left out.
    fn refuse(&mut self, at: datafusion::sql::sqlparser::tokenizer::Span, message: impl Into<String>) {
        let at = self.text.bytes(at);
        if at.is_none() || self.errors.iter().all(|e| e.at != at) {
            self.errors.push(SqlError {
                message: message.into(),
                at,
            });
        }
    }

    /// The tables read, each as often as it is named.
    fn tables(
        &mut self,
        statement: &Statement,
        found: &Found,
    ) -> Vec<(&'a SqlTable, datafusion::sql::sqlparser::tokenizer::Span)> {
        let references = match self.state.resolve_table_references(statement) {
            Ok(references) => references,
            Err(e) => {
                self.errors.push(self.text.error(&e));
                return Vec::new();
            }
        };
        // Names of common table expressions are not among the references.
        let referenced: HashSet<String> = references.iter().map(|r| r.to_string()).collect();
        let known: Vec<&str> = self.request.tables.iter().map(|t| t.name.as_str()).collect();
        let references: Vec<&str> = self.references.iter().map(|t| t.name.as_str()).collect();
        let mut tables = Vec::new();
        for relation in &found.relations {
            let name = table_name(relation);
            if !referenced.contains(&name) || found.table_functions.contains(&name) {
                continue;
            }
            match self.request.tables.iter().find(|t| t.name == name) {
                Some(table) => tables.push((table, relation.span())),
                None if references.contains(&name.as_str()) => {
                    if !self.referenced.contains(&name) {
                        self.referenced.push(name);
                    }
                }
                None => self.refuse(
                    relation.span(),
                    format!(
                        "no stream or window is named {name:?}{}",
                        instead(&name, &[&known[..], &references].concat())
                    ),
                ),
            }
        }
        if tables.is_empty() && self.errors.is_empty() {
            let but = match self.referenced.first() {
                Some(table) => format!(", only the table {table:?}, in which nothing ever arrives"),
                None => String::new(),
            };
            self.errors.push(SqlError {
                message: format!(
                    "the query reads no stream or window{but}; select from one of {}",
                    known.join(", ")
                ),
                at: None,
            });
        }
        tables
    }

    /// The window of all tables, if they have one.
    fn windows(
        &mut self,
        tables: &[(&'a SqlTable, datafusion::sql::sqlparser::tokenizer::Span)],
    ) -> Option<Window> {
        let windowed = tables.iter().find(|(table, _)| table.window.is_some());
        let (first, _) = windowed?;
        for (table, at) in tables {
            match &table.window {
                None => self.refuse(
                    *at,
                    format!(
                        "{:?} has no window, but {:?} has; add a [window.NAME] with input = {:?} and select from \
                         that",
                        table.name, first.name, table.name
                    ),
                ),
                window if *window != first.window => self.refuse(
                    *at,
                    format!(
                        "{:?} and {:?} are cut into different windows; give both the same type, size and offset",
                        first.name, table.name
                    ),
                ),
                Some(_) if table.lateness != first.lateness => {
                    let says = |t: &SqlTable| match t.lateness {
                        Some(lateness) => format!("{:?} fires again for rows up to {lateness:?} late", t.name),
                        None => format!("{:?} fires once", t.name),
                    };
                    let message = format!(
                        "{}, but {}; give both the same allowed_lateness and on_late",
                        says(first),
                        says(table)
                    );
                    self.refuse(*at, message);
                }
                Some(window) => self.window(table, window, *at),
            }
        }
        first.window.clone()
    }

    fn window(&mut self, table: &SqlTable, window: &Window, at: datafusion::sql::sqlparser::tokenizer::Span) {
        if let Err(e) = Panes::new(window) {
            self.refuse(at, format!("{:?}: {e}", table.name));
        }
        for name in [WINDOW_START, WINDOW_END] {
            if table.schema.column_with_name(name).is_some() {
                self.refuse(
                    at,
                    format!(
                        "a row of {:?} has a column {name:?} of its own; rename it before the window",
                        table.name
                    ),
                );
            }
        }
    }

    fn functions(&mut self, functions: &[Function], windowed: bool) {
        for function in functions {
            let name = table_name(&function.name);
            let of_window = name == WINDOW_START || name == WINDOW_END;
            let volatility = self
                .state
                .scalar_functions()
                .get(&name)
                .map(|f| f.signature().volatility);
            let without_arguments = function.args.to_string().trim_matches(['(', ')']).is_empty();
            let message = match volatility {
                Some(_) if of_window && windowed => continue,
                Some(_) if of_window => {
                    format!("{name}() has a meaning only for windows; select from a window, or leave it out")
                }
                Some(Volatility::Stable) if without_arguments => format!(
                    "{name}() reads the wall clock, so a replay would give another result; use the event time \
                     column{}",
                    if windowed { " or window_start()" } else { "" }
                ),
                Some(Volatility::Volatile) if windowed => format!(
                    "{name}() gives another result each time, so a window would not give the same result after a \
                     restart; compute it before the window or leave it out"
                ),
                _ => continue,
            };
            self.refuse(function.name.span(), message);
        }
    }
}

/// How often streams are read, and so how a query over streams without windows runs. Reference tables do not
/// count.
pub(super) fn reads(plan: &LogicalPlan, streams: &[String]) -> usize {
    let mut reads = 0;
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            reads += usize::from(streams.iter().any(|s| s == scan.table_name.table()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    reads
}

/// Checks the plan of a query over streams without a window: each row, or each pair of joined rows, must give
/// its own results.
pub(super) fn row_by_row(
    plan: &LogicalPlan,
    streams: &[String],
    query: &str,
    state: &SessionState,
) -> Option<SqlError> {
    let mut offence: Option<(&'static str, &'static [&'static str])> = None;
    let joined = reads(plan, streams) > 1;
    let visited = plan.apply_with_subqueries(|node| {
        // What is computed from reference tables alone is the same for every row.
        if reads(node, streams) == 0 {
            return Ok(TreeNodeRecursion::Jump);
        }
        offence = match node {
            LogicalPlan::Join(join) if !joined && joins_row_by_row(join, streams) => {
                return Ok(TreeNodeRecursion::Continue);
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::TableScan(_) => return Ok(TreeNodeRecursion::Continue),
            // What is wrong with how streams are combined is said where they are joined.
            LogicalPlan::Join(_) | LogicalPlan::Union(_) | LogicalPlan::Subquery(_) if joined => {
                return Ok(TreeNodeRecursion::Continue);
            }
            LogicalPlan::Aggregate(_) => Some(("an aggregate", &["group"])),
            LogicalPlan::Distinct(_) => Some(("DISTINCT", &["distinct"])),
            LogicalPlan::Sort(_) => Some(("ORDER BY", &["order"])),
            LogicalPlan::Limit(_) => Some(("LIMIT", &["limit", "offset", "fetch"])),
            // The stream stands on one side, and the other keeps what matches nothing.
            LogicalPlan::Join(_) => Some(("keeping a table's unmatched rows", &["join"])),
            LogicalPlan::Window(_) => Some(("a window function", &["over"])),
            LogicalPlan::Union(_) => Some(("UNION", &["union"])),
            LogicalPlan::Subquery(_) => Some(("a subquery", &["exists", "in"])),
            _ => Some(("this", &[])),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    let (what, keywords) = match (visited, offence) {
        (Ok(_), None) => return None,
        (Ok(_), Some(offence)) => offence,
        (Err(e), _) => return Some(Text(query).error(&e)),
    };
    let aggregate = || {
        find_word(query, |word, next| {
            *next == Token::LParen && state.aggregate_functions().contains_key(word)
        })
    };
    let keyword = || find_word(query, |word, _| keywords.contains(&word));
    Some(SqlError {
        message: endless(what, streams, joined),
        at: if what == "an aggregate" {
            aggregate().or_else(keyword)
        } else {
            keyword()
        },
    })
}

fn endless(what: &str, streams: &[String], joined: bool) -> String {
    let first = streams.first().map_or("", String::as_str);
    let last = streams.last().map_or("", String::as_str);
    match joined {
        false => format!(
            "{what} over {first:?} would never end, because the stream does not; add a [window.NAME] with input = \
             {first:?} and select from that"
        ),
        true => format!(
            "{what} over the join of {first:?} and {last:?} would never end, because the streams do not; join them in \
             a [sql.NAME] of its own, add a [window.NAME] with that as its input, and select from the window"
        ),
    }
}

/// The place of the first word, in lower case and with the token after it, that fits.
fn find_word(query: &str, fits: impl Fn(&str, &Token) -> bool) -> Option<Range<usize>> {
    let tokens = Tokenizer::new(&GenericDialect {}, query)
        .tokenize_with_location()
        .ok()?;
    let tokens: Vec<_> = tokens
        .into_iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_)))
        .collect();
    let pairs = tokens
        .iter()
        .zip(tokens.iter().skip(1).map(|t| &t.token).chain([&Token::EOF]));
    let word = |token: &Token| match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        _ => None,
    };
    pairs
        .filter(|(token, next)| word(&token.token).is_some_and(|w| fits(&w, next)))
        .find_map(|(token, _)| Text(query).bytes(token.span))
}

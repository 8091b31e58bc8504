//! Parts of URLs, by the WHATWG rules (crate `url`): hosts come in lower case, percent signs stay in paths and
//! are resolved in query parameters. A text that is not an absolute URL has no parts: NULL.

use percent_encoding::percent_decode;
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::rows::Kind::{Literal, Text};
use super::rows::{Definition, Gives, Literals, PerRow, Value};

pub(super) const FUNCTIONS: &[Definition] = &[
    part("url_protocol", |_| {
        Ok(of_url(|url| Some(url.scheme().to_owned())))
    }),
    part("url_host", |_| {
        Ok(of_url(|url| url.host_str().map(str::to_owned)))
    }),
    part("url_path", |_| Ok(of_url(|url| Some(url.path().to_owned())))),
    part("url_query", |_| Ok(of_url(|url| url.query().map(str::to_owned)))),
    part("url_fragment", |_| {
        Ok(of_url(|url| url.fragment().map(str::to_owned)))
    }),
    Definition {
        name: "url_port",
        takes: &[&[Text]],
        gives: Gives::Integer,
        make: |_| {
            Ok(Box::new(|row| {
                let port = Url::parse(row.text(0)).ok()?.port_or_known_default()?;
                Some(Value::Integer(port.into()))
            }))
        },
    },
    Definition {
        name: "url_query_param",
        takes: &[&[Text, Text]],
        gives: Gives::Text,
        make: |_| {
            Ok(Box::new(|row| {
                let url = Url::parse(row.text(0)).ok()?;
                let found = url.query_pairs().find(|(name, _)| name == row.text(1));
                found.map(|(_, value)| Value::text(value.into_owned()))
            }))
        },
    },
    Definition {
        name: "parse_url",
        takes: &[&[Text, Literal], &[Text, Literal, Text]],
        gives: Gives::Text,
        make: parse_url,
    },
    part("url_encode", |_| {
        Ok(Box::new(|row| {
            Some(Value::text(
                byte_serialize(row.text(0).as_bytes()).collect::<String>(),
            ))
        }))
    }),
    part("url_decode", |_| {
        Ok(Box::new(|row| {
            let spaced = row.text(0).replace('+', " ");
            let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?;
            Some(Value::text(decoded.into_owned()))
        }))
    }),
];

const fn part(name: &'static str, make: super::rows::Make) -> Definition {
    Definition {
        name,
        takes: &[&[Text]],
        gives: Gives::Text,
        make,
    }
}

/// Takes a part of a URL.
type Part = fn(&Url) -> Option<String>;

fn of_url(part: Part) -> PerRow {
    Box::new(move |row| {
        let url = Url::parse(row.text(0)).ok()?;
        part(&url).map(Value::text)
    })
}

/// Parts by the names that Flink and Hive have for them.
const PARTS: [(&str, Part); 8] = [
    ("HOST", |url| url.host_str().map(str::to_owned)),
    ("PATH", |url| Some(url.path().to_owned())),
    ("QUERY", |url| url.query().map(str::to_owned)),
    ("REF", |url| url.fragment().map(str::to_owned)),
    ("PROTOCOL", |url| Some(url.scheme().to_owned())),
    ("AUTHORITY", |url| {
        Some(url.authority().to_owned()).filter(|a| !a.is_empty())
    }),
    ("FILE", |url| {
        let query = url.query().map(|query| format!("?{query}"));
        Some(format!("{}{}", url.path(), query.unwrap_or_default()))
    }),
    ("USERINFO", |url| {
        let password = url.password().map(|password| format!(":{password}"));
        let user = format!("{}{}", url.username(), password.unwrap_or_default());
        Some(user).filter(|user| !user.is_empty())
    }),
];

/// `parse_url(url, part)`, and `parse_url(url, 'QUERY', key)` for the value of a key as it stands in the URL.
fn parse_url(literals: &Literals<'_>) -> Result<PerRow, String> {
    let Some(name) = literals.text(1) else {
        return Ok(Box::new(|_| None));
    };
    let Some((name, part)) = PARTS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = PARTS.iter().map(|(known, _)| *known).collect();
        return Err(format!(
            "there is no part {name:?}; write one of {}",
            known.join(", ")
        ));
    };
    if literals.len() < 3 {
        return Ok(of_url(*part));
    }
    if *name != "QUERY" {
        return Err(format!("a key goes with 'QUERY', not with {name:?}"));
    }
    Ok(Box::new(|row| {
        let url = Url::parse(row.text(0)).ok()?;
        let mut pairs = url.query()?.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == row.text(2))?;
        Some(Value::text(value.to_owned()))
    }))
}

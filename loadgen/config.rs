//! The YAML file of the predecessor's load generator, taken unchanged, with flags laid over it.
//!
//! `$VAR` and `${VAR}` expand from the environment before parsing, as there; `${VAR:-default}` is new. Every
//! mistake is an error that names the place and the nearest known key: a misspelled key that silently
//! kept its default would ruin a measurement without anyone noticing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_yaml_ng::Value;

/// Where millstream listens when nothing else is said.
pub const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8080/advertising";

/// The checked description of the traffic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Requests go to `BaseURL/impressions` and `BaseURL/clicks`.
    #[serde(rename = "BaseURL")]
    pub base_url: String,
    /// Loadgen ends by itself after this time.
    #[serde(deserialize_with = "duration")]
    pub duration: Duration,
    /// What is shown.
    #[serde(deserialize_with = "section")]
    pub ads: Ads,
    /// Who looks at it.
    #[serde(deserialize_with = "section")]
    pub users: Users,
}

/// The section `Ads`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ads {
    /// Number of different ads.
    pub count: u64,
}

/// The section `Users`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Users {
    /// Number of simulated users.
    pub count: u32,
    /// Share of impressions that are clicked, 0 to 1.
    pub clickthrough_probability: f64,
    /// Time from deciding about one ad to the next impression.
    #[serde(deserialize_with = "duration")]
    pub view_frequency: Duration,
    /// Half width of the jitter of `ViewFrequency`, as a share of it, 0 to 1.
    pub view_variance: f64,
    /// Time from the impression to the click.
    #[serde(deserialize_with = "duration")]
    pub consider_duration: Duration,
    /// Half width of the jitter of `ConsiderDuration`, as a share of it, 0 to 1.
    pub consider_variance: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            base_url: DEFAULT_BASE_URL.to_owned(),
            duration: Duration::from_secs(72 * 3600),
            ads: Ads::default(),
            users: Users::default(),
        }
    }
}

impl Default for Ads {
    fn default() -> Ads {
        Ads { count: 1_000_000 }
    }
}

impl Default for Users {
    fn default() -> Users {
        Users {
            count: 1000,
            clickthrough_probability: 0.3,
            view_frequency: Duration::from_secs(5),
            view_variance: 0.1,
            consider_duration: Duration::from_secs(1),
            consider_variance: 0.1,
        }
    }
}

/// Every key of the file, with its section.
const KEYS: [(&str, &[&str]); 3] = [
    ("", &["BaseURL", "Duration", "Ads", "Users"]),
    ("Ads", &["Count"]),
    (
        "Users",
        &[
            "Count",
            "ClickthroughProbability",
            "ViewFrequency",
            "ViewVariance",
            "ConsiderDuration",
            "ConsiderVariance",
        ],
    ),
];

/// Users beyond this are a typing error: each one is an entry of the event queue (about 100 bytes).
const MAX_USERS: u32 = 10_000_000;

/// Ads beyond this are a typing error too; their ids are computed, not stored.
const MAX_ADS: u64 = 1_000_000_000;

impl Config {
    /// Reads and checks a file; variables come from the environment.
    pub fn load(path: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}: give the path of a YAML file", path.display()))?;
        Config::parse(&text, |name| std::env::var(name).ok()).with_context(|| path.display().to_string())
    }

    /// The same from text and any set of variables. Values are not yet checked: flags may replace them.
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Config> {
        let text = expand(text, variable)?;
        let value: Value = serde_yaml_ng::from_str(&text).context("not valid YAML")?;
        if value.is_null() {
            return Ok(Config::default());
        }
        check_keys(&text, &value)?;
        Ok(serde_yaml_ng::from_str(&text)?)
    }

    /// Refuses values that no run can mean.
    pub fn check(&self) -> anyhow::Result<()> {
        check_base_url(&self.base_url)?;
        ensure!(
            !self.duration.is_zero(),
            "Duration is 0: give a time such as 72h or 1m30s"
        );
        ensure!(
            (1..=MAX_ADS).contains(&self.ads.count),
            "Ads.Count is {}: give 1 to {MAX_ADS}",
            self.ads.count
        );
        let users = &self.users;
        ensure!(
            (1..=MAX_USERS).contains(&users.count),
            "Users.Count is {}: give 1 to {MAX_USERS}",
            users.count
        );
        for (name, share) in [
            ("ClickthroughProbability", users.clickthrough_probability),
            ("ViewVariance", users.view_variance),
            ("ConsiderVariance", users.consider_variance),
        ] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "Users.{name} is {share}: give a share from 0 to 1"
            );
        }
        ensure!(
            !(users.view_frequency + users.consider_duration).is_zero(),
            "Users.ViewFrequency and Users.ConsiderDuration are both 0: users would never wait; use --closed-loop for maximum load"
        );
        Ok(())
    }
}

/// Parses `72h`, `1m30s`, `500ms`, `1.5s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a duration ({error}): write 72h, 1m30s or 500ms"))
}

/// A section that is named but empty keeps its defaults, as in the predecessor.
fn section<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = match &value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => {
            return Err(serde::de::Error::custom(format!(
                "{other:?} is not a duration: write 72h"
            )));
        }
    };
    parse_duration(&text).map_err(serde::de::Error::custom)
}

fn check_base_url(url: &str) -> anyhow::Result<()> {
    ensure!(
        !url.is_empty(),
        "BaseURL is empty: is the environment variable it names set?"
    );
    ensure!(
        !url.starts_with("https://"),
        "BaseURL {url} is https: loadgen speaks plain http, point it at the http listener"
    );
    let uri: hyper::Uri = url
        .parse()
        .with_context(|| format!("BaseURL {url:?} is not a URL"))?;
    ensure!(
        uri.scheme_str() == Some("http") && uri.host().is_some(),
        "BaseURL {url:?} is not an http URL: write {DEFAULT_BASE_URL}"
    );
    ensure!(
        uri.query().is_none(),
        "BaseURL {url:?} has a query: the stream's name is added to the path"
    );
    Ok(())
}

fn check_keys(text: &str, value: &Value) -> anyhow::Result<()> {
    for (section, known) in KEYS {
        let part = if section.is_empty() {
            Some(value)
        } else {
            value.get(section)
        };
        let Some(part) = part.filter(|part| !part.is_null()) else {
            continue;
        };
        let Value::Mapping(entries) = part else {
            let what = if section.is_empty() { "the file" } else { section };
            bail!("{what} is not a mapping: write {}: … below it", known[0]);
        };
        for (key, value) in entries {
            let name = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
            if !known.contains(&name.as_str()) {
                return Err(unknown_key(text, section, &name, known));
            }
            let is_section = KEYS.iter().any(|(section, _)| *section == name);
            ensure!(
                is_section || !value.is_null(),
                "{name} is empty: give a value or remove the key (is the environment variable it names set?)"
            );
        }
    }
    Ok(())
}

fn unknown_key(text: &str, section: &str, name: &str, known: &[&str]) -> anyhow::Error {
    let line = text.lines().position(|line| line.trim_start().starts_with(name));
    let place = line.map_or_else(String::new, |index| format!("line {}: ", index + 1));
    let within = if section.is_empty() {
        String::new()
    } else {
        format!(" in {section}")
    };
    let nearest = known
        .iter()
        .max_by(|a, b| similarity(name, a).total_cmp(&similarity(name, b)));
    let hint = match nearest {
        Some(near) if similarity(name, near) > 0.5 => format!("did you mean {near}?"),
        _ => format!("known keys: {}", known.join(", ")),
    };
    anyhow::anyhow!("{place}unknown key {name:?}{within}: {hint}")
}

fn similarity(left: &str, right: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(&left.to_lowercase(), &right.to_lowercase())
}

/// Expands `$VAR`, `${VAR}` and `${VAR:-default}`. An unset variable without a default is empty, as in Go.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(braced) = after.strip_prefix('{') {
            let Some(end) = braced.find('}') else {
                bail!(
                    "line {}: ${{ is never closed",
                    text[..text.len() - after.len()].lines().count()
                );
            };
            let (name, default) = match braced[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&braced[..end], None),
            };
            let value = variable(name).filter(|value| default.is_none() || !value.is_empty());
            out.push_str(value.as_deref().or(default).unwrap_or(""));
            rest = &braced[end + 1..];
        } else {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            match end {
                0 => out.push('$'),
                _ => out.push_str(&variable(&after[..end]).unwrap_or_default()),
            }
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("example.test:81".to_owned()),
            "USERS" => Some("17".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn outcome(text: &str) -> serde_json::Value {
        match Config::parse(text, variables).and_then(|config| config.check().map(|()| config)) {
            Ok(config) => json!({
                "base_url": config.base_url,
                "duration_ms": config.duration.as_millis() as u64,
                "ads": config.ads.count,
                "users": config.users.count,
                "clickthrough": config.users.clickthrough_probability,
                "view_ms": config.users.view_frequency.as_millis() as u64,
                "view_variance": config.users.view_variance,
                "consider_ms": config.users.consider_duration.as_millis() as u64,
                "consider_variance": config.users.consider_variance,
            }),
            Err(error) => json!(format!("{error:#}")),
        }
    }

    /// `testdata/config.yaml`: each case has a file's text and what comes of it: the values that differ
    /// from the defaults, or a part of the error.
    #[test]
    fn cases() {
        #[derive(Deserialize)]
        struct Case {
            name: String,
            file: String,
            #[serde(default)]
            expect: serde_json::Map<String, serde_json::Value>,
            error: Option<String>,
        }
        let cases: Vec<Case> =
            serde_yaml_ng::from_str(include_str!("testdata/config.yaml")).expect("the case file is YAML");
        assert!(cases.len() > 10);
        for case in cases {
            let got = outcome(&case.file);
            if let Some(error) = &case.error {
                assert!(
                    got.as_str().is_some_and(|got| got.contains(error)),
                    "{}: got {got}",
                    case.name
                );
                continue;
            }
            let mut want = outcome("");
            for (key, value) in case.expect {
                want[key] = value;
            }
            assert_eq!(got, want, "{}", case.name);
        }
    }

    #[test]
    fn the_demo_file_is_valid_and_small_enough_for_a_laptop() {
        let config = Config::parse(include_str!("demo.yaml"), |_| None).expect("demo.yaml parses");
        config.check().expect("demo.yaml is valid");
        assert_eq!(config.base_url, DEFAULT_BASE_URL);
        let users = &config.users;
        let cycle = (users.view_frequency + users.consider_duration).as_secs_f64();
        let rows_per_second = f64::from(users.count) / cycle * (1.0 + users.clickthrough_probability);
        assert!(
            (200.0..400.0).contains(&rows_per_second),
            "{rows_per_second} rows/s"
        );
    }
}

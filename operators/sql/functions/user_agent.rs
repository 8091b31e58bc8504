//! What a `User-Agent` header says: browser, version, operating system, kind of device.
//!
//! Rules of our own, because the crates that do this either know no tablets and no browsers of the last years
//! (`woothee`) or bring a thousand regular expressions (`ua-parser`). A rule is a word to look for; the first one
//! found decides, so the words of derived browsers stand before those of the browsers they claim to be. What no
//! rule knows is NULL.

use super::rows::Kind::Text;
use super::rows::{Definition, Gives, Make, Value};

pub(super) const FUNCTIONS: &[Definition] = &[
    function("user_agent_browser", |_| {
        Ok(Box::new(|row| {
            browser(row.text(0)).map(|(name, _)| Value::text(name))
        }))
    }),
    function("user_agent_version", |_| {
        Ok(Box::new(|row| version(row.text(0)).map(Value::text)))
    }),
    function("user_agent_os", |_| {
        Ok(Box::new(|row| {
            first(row.text(0), OPERATING_SYSTEMS).map(Value::text)
        }))
    }),
    function("user_agent_device", |_| {
        Ok(Box::new(|row| device(row.text(0)).map(Value::text)))
    }),
];

const fn function(name: &'static str, make: Make) -> Definition {
    Definition {
        name,
        takes: &[&[Text]],
        gives: Gives::Text,
        make,
    }
}

/// A word, the browser it means, and the word in front of the version.
type Browser = (&'static str, &'static str, &'static str);

const BROWSERS: &[Browser] = &[
    // Programs that say who they are.
    ("Googlebot", "Googlebot", "Googlebot/"),
    ("bingbot", "Bingbot", "bingbot/"),
    ("YandexBot", "YandexBot", "YandexBot/"),
    ("Baiduspider", "Baiduspider", "Baiduspider/"),
    ("DuckDuckBot", "DuckDuckBot", "DuckDuckBot/"),
    ("Applebot", "Applebot", "Applebot/"),
    ("AhrefsBot", "AhrefsBot", "AhrefsBot/"),
    ("SemrushBot", "SemrushBot", "SemrushBot/"),
    ("GPTBot", "GPTBot", "GPTBot/"),
    ("ClaudeBot", "ClaudeBot", "ClaudeBot/"),
    (
        "facebookexternalhit",
        "facebookexternalhit",
        "facebookexternalhit/",
    ),
    ("Twitterbot", "Twitterbot", "Twitterbot/"),
    ("HeadlessChrome/", "Headless Chrome", "HeadlessChrome/"),
    ("curl/", "curl", "curl/"),
    ("Wget/", "Wget", "Wget/"),
    ("python-requests/", "python-requests", "python-requests/"),
    ("okhttp/", "okhttp", "okhttp/"),
    ("Go-http-client/", "Go-http-client", "Go-http-client/"),
    ("PostmanRuntime/", "Postman", "PostmanRuntime/"),
    // Apps that show pages.
    ("FBAV/", "Facebook", "FBAV/"),
    ("Instagram ", "Instagram", "Instagram "),
    ("Pinterest/", "Pinterest", "Pinterest/"),
    ("MicroMessenger/", "WeChat", "MicroMessenger/"),
    // Browsers that also claim to be Chrome or Safari.
    ("EdgA/", "Edge", "EdgA/"),
    ("EdgiOS/", "Edge", "EdgiOS/"),
    ("Edg/", "Edge", "Edg/"),
    ("Edge/", "Edge", "Edge/"),
    ("OPR/", "Opera", "OPR/"),
    ("OPiOS/", "Opera", "OPiOS/"),
    ("Opera Mini/", "Opera Mini", "Opera Mini/"),
    ("Opera", "Opera", "Version/"),
    ("SamsungBrowser/", "Samsung Internet", "SamsungBrowser/"),
    ("YaBrowser/", "Yandex Browser", "YaBrowser/"),
    ("Vivaldi/", "Vivaldi", "Vivaldi/"),
    ("UCBrowser/", "UC Browser", "UCBrowser/"),
    ("MiuiBrowser/", "Miui Browser", "MiuiBrowser/"),
    ("HuaweiBrowser/", "Huawei Browser", "HuaweiBrowser/"),
    ("DuckDuckGo/", "DuckDuckGo", "DuckDuckGo/"),
    ("Silk/", "Silk", "Silk/"),
    ("FxiOS/", "Firefox", "FxiOS/"),
    ("Focus/", "Firefox", "Focus/"),
    ("Firefox/", "Firefox", "Firefox/"),
    ("CriOS/", "Chrome", "CriOS/"),
    ("Chromium/", "Chromium", "Chromium/"),
    ("; wv)", "Android WebView", "Chrome/"),
    ("Chrome/", "Chrome", "Chrome/"),
    ("Android", "Android Browser", "Version/"),
    ("Safari/", "Safari", "Version/"),
    ("MSIE ", "Internet Explorer", "MSIE "),
    ("Trident/", "Internet Explorer", "rv:"),
];

const OPERATING_SYSTEMS: &[(&str, &str)] = &[
    ("Windows Phone", "Windows Phone"),
    ("Windows", "Windows"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("iPod", "iOS"),
    ("KAIOS", "KaiOS"),
    ("Tizen", "Tizen"),
    ("Web0S", "webOS"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("Ubuntu", "Linux"),
    ("Linux", "Linux"),
    ("FreeBSD", "FreeBSD"),
];

/// What programs that fetch pages have in their names; compared in lower case.
const BOTS: [&str; 7] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "headless",
    "facebookexternalhit",
    "preview",
];
/// Libraries, which are no browser either.
const LIBRARIES: [&str; 8] = [
    "curl/",
    "wget/",
    "python-",
    "okhttp/",
    "go-http-client/",
    "java/",
    "postmanruntime/",
    "apache-httpclient/",
];
/// Phones whose name has a bot in it.
const NO_BOT: &str = "cubot";

const DEVICES: &[(&str, &str)] = &[
    ("iPad", "tablet"),
    ("Tablet", "tablet"),
    ("Kindle", "tablet"),
    ("Silk/", "tablet"),
    ("iPhone", "mobile"),
    ("iPod", "mobile"),
    ("Mobi", "mobile"),
    ("Opera Mini", "mobile"),
    ("Android", "tablet"),
    ("Windows", "desktop"),
    ("Macintosh", "desktop"),
    ("CrOS", "desktop"),
    ("X11", "desktop"),
    ("Linux", "desktop"),
];

/// Televisions call themselves Android or Linux.
const TELEVISIONS: [&str; 5] = ["SmartTV", "SMART-TV", "Web0S", "AppleTV", "Android TV"];

fn first(text: &str, rules: &'static [(&str, &str)]) -> Option<&'static str> {
    let rule = rules.iter().find(|(word, _)| text.contains(word));
    rule.map(|(_, name)| *name)
}

/// The browser's name and the word in front of its version.
fn browser(text: &str) -> Option<(&'static str, &'static str)> {
    let rule = BROWSERS.iter().find(|(word, ..)| text.contains(word));
    rule.map(|(_, name, version)| (*name, *version))
}

/// Digits and points after the browser's word.
fn version(text: &str) -> Option<&str> {
    let (_, before) = browser(text)?;
    let (_, after) = text.split_once(before)?;
    let end = after
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(after.len());
    Some(after[..end].trim_end_matches('.')).filter(|version| !version.is_empty())
}

fn device(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if (says(&BOTS) || says(&LIBRARIES)) && !lower.contains(NO_BOT) {
        return Some("bot");
    }
    if TELEVISIONS.iter().any(|word| text.contains(word)) {
        return None;
    }
    first(text, DEVICES)
}

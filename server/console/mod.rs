//! The console: a few files inside the binary, no build step, nothing fetched from elsewhere.
//!
//! `/` shows pipelines. The pages about loads are `shell.html` around what is theirs; what they show, they ask `/v1` for,
//! so they hold nothing that needs the token.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const INDEX: &str = include_str!("index.html");
const SHELL: &str = include_str!("pages/shell.html");

/// A page about loads.
struct Page {
    /// Where it is, as a route.
    path: &'static str,
    title: &'static str,
    script: &'static str,
    main: &'static str,
}

macro_rules! page {
    ($path:literal, $title:literal, $name:literal) => {
        Page {
            path: $path,
            title: $title,
            script: concat!($name, ".js"),
            main: include_str!(concat!("pages/", $name, ".html")),
        }
    };
}

const PAGES: [Page; 7] = [
    page!("/loads", "Loads", "loads"),
    page!("/loads/new", "New load", "new-load"),
    page!("/loads/{uuid}", "Load", "load"),
    page!("/schemas", "Schemas", "schemas"),
    page!("/schemas/new", "New schema", "new-schema"),
    page!("/schemas/{log}/{version}", "Schema", "schema"),
    page!("/clusters", "Clusters", "clusters"),
];

macro_rules! files {
    ($type:expr; $($name:literal),*) => { [$(($type, concat!("/console/", $name), include_str!($name))),*] };
}

const SCRIPTS: [(&str, &str, &str); 18] = files!(SCRIPT;
    "api.js", "app.js", "calendar.js", "chart.js", "clusters.js", "dom.js", "format.js", "graph.js", "load.js",
    "loads.js", "new-load.js", "new-schema.js", "page.js", "schema.js", "schema-list.js", "schema-tables.js",
    "schemas.js", "states.js");
const STYLES: [(&str, &str, &str); 2] = files!(STYLE; "pages.css", "style.css");

/// Everything comes from this process, nothing is inline, nobody frames the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/`, the pages about loads, and `/console/*`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = Router::new().route("/", get(async || file(HTML, INDEX)));
    let pages = PAGES.iter().fold(index, |router, page| {
        let whole = page.whole();
        router.route(page.path, get(async move || file(HTML, whole)))
    });
    let files = SCRIPTS.into_iter().chain(STYLES);
    files.fold(pages, |router, (content_type, path, text)| {
        router.route(path, get(async move || file(content_type, text)))
    })
}

impl Page {
    fn whole(&self) -> String {
        // "/loads/new" belongs to "/loads".
        let section = self.path.split('/').nth(1).unwrap_or_default();
        let link = format!("href=\"/{section}\"");
        SHELL
            .replace("{title}", self.title)
            .replace("{script}", self.script)
            .replacen(&link, &format!("{link} aria-current=\"page\""), 1)
            .replace("{main}", self.main.trim_end())
    }
}

fn file(content_type: &'static str, text: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        // A newer binary at the same address must not meet an older page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page or a script names is served.
    #[test]
    fn every_file_that_is_named_is_there() {
        let served: Vec<&str> = SCRIPTS.iter().chain(&STYLES).map(|(_, path, _)| *path).collect();
        let pages: Vec<String> = PAGES.iter().map(Page::whole).collect();
        for text in pages.iter().map(String::as_str).chain([INDEX]) {
            let named = text.split(['"']).filter(|word| word.starts_with("/console/"));
            for path in named {
                assert!(served.contains(&path), "{path}");
            }
            assert!(!text.contains("{main}") && !text.contains("{title}"));
            assert_eq!(text.matches("aria-current").count(), 1);
            let elsewhere = text.split(['"', '\'']).filter(|word| word.starts_with("http"));
            // The one address is the name space of the icon.
            assert!(elsewhere.eq(["http://www.w3.org/2000/svg"]));
        }
        for (_, path, script) in SCRIPTS {
            let named = script
                .lines()
                .filter_map(|line| line.split_once("from \"./")?.1.split('"').next());
            for name in named {
                assert!(
                    served.contains(&format!("/console/{name}").as_str()),
                    "{path} imports {name}"
                );
            }
        }
    }
}

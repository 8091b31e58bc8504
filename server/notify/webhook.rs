//! Webhooks: a notice posted as JSON.
//!
//! `Idempotency-Key` is the same whenever a notice is posted again. With a secret, `Millstream-Signature` is
//! `sha256=` and the HMAC-SHA-256 of the body in hexadecimal, by which the receiver can tell that it came from here.
//!
//! What the answers mean: 2xx is taken; 408, 425, 429, 5xx and none are "later", after `Retry-After` where given;
//! everything else is a refusal.

use aws_lc_rs::{digest, hmac};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use axum::http::{Method, Request, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use millstream_engine::Error;
use millstream_engine::secret::Secret;
use millstream_operators::client::{Answered, HttpClient, shown};
use url::Url;

use crate::catalog::model::Notice;
use crate::notify::{Outcome, TIMEOUT, message};

/// Digits by which webhooks of one host are told apart.
const MARK_BYTES: usize = 4;

/// A receiver of notices.
pub struct Webhook {
    /// What it is called where the whole address, which may hold a token, must not stand.
    pub name: String,
    client: HttpClient,
    uri: Uri,
    user: Option<HeaderValue>,
    key: Option<hmac::Key>,
}

impl Webhook {
    /// Makes no connection.
    pub fn new(url: &Secret, secret: Option<&Secret>) -> anyhow::Result<Webhook> {
        let (uri, user) = parts(url.expose()).map_err(anyhow::Error::msg)?;
        let mark = digest::digest(&digest::SHA256, url.expose().as_bytes());
        Ok(Webhook {
            name: format!("{}#{}", shown(&uri), hex(&mark.as_ref()[..MARK_BYTES])),
            client: HttpClient::new(&uri)?,
            uri,
            user,
            key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())),
        })
    }

    /// Posts a notice.
    pub async fn send(&self, notice: &Notice, public_url: &str) -> Outcome {
        let body = message::json(notice, public_url).to_string();
        let request = match self.request(&message::key(notice), body) {
            Ok(request) => request,
            Err(error) => return Outcome::Refused(format!("no request can be made of it: {error}")),
        };
        match self.client.send(request, TIMEOUT).await {
            Ok(answered) => sort(answered),
            Err(Error::Retry { message, after }) => Outcome::Later(message, after),
            Err(error) => Outcome::Later(error.to_string(), None),
        }
    }

    fn request(&self, key: &str, body: String) -> anyhow::Result<Request<Full<Bytes>>> {
        let signature = self.key.as_ref().map(|key| signature(key, body.as_bytes()));
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("millstream/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert("idempotency-key", key.parse()?);
        if let Some(signature) = signature {
            headers.insert("millstream-signature", signature.parse()?);
        }
        if let Some(user) = &self.user {
            headers.insert(AUTHORIZATION, user.clone());
        }
        Ok(request)
    }
}

/// Reads the address of a webhook.
pub fn address(text: &str) -> Result<Secret, String> {
    parts(text).map(|_| Secret::new(text))
}

/// The address without its user, and what the user is sent as.
fn parts(text: &str) -> Result<(Uri, Option<HeaderValue>), String> {
    let wrong = || "not a webhook; write http://host/path or https://host/path".to_owned();
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    let user = match url.username() {
        "" => None,
        name => {
            let decoded = |text: &str| {
                percent_encoding::percent_decode_str(text)
                    .decode_utf8_lossy()
                    .into_owned()
            };
            let pair = format!(
                "{}:{}",
                decoded(name),
                decoded(url.password().unwrap_or_default())
            );
            let mut value =
                HeaderValue::from_str(&format!("Basic {}", BASE64.encode(pair))).map_err(|_| wrong())?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    url.set_username("")
        .and_then(|()| url.set_password(None))
        .map_err(|()| wrong())?;
    url.set_fragment(None);
    Ok((url.as_str().parse().map_err(|_| wrong())?, user))
}

fn signature(key: &hmac::Key, body: &[u8]) -> String {
    format!("sha256={}", hex(hmac::sign(key, body).as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sort(answered: Answered) -> Outcome {
    let Answered { status, after, said } = answered;
    let why = format!("answered {status}: {said}");
    match status {
        200..=299 => Outcome::Taken,
        408 | 425 | 429 | 500.. => Outcome::Later(why, after),
        _ => Outcome::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_is_signed_and_shows_no_secret() {
        let url = Secret::new("https://u:p%40ss@hooks.example/T1/token?x=1#y");
        let hook = Webhook::new(&url, Some(&Secret::new("key"))).expect("a webhook");
        assert!(hook.name.starts_with("https://hooks.example#"), "{}", hook.name);
        let body = "The quick brown fox jumps over the lazy dog";
        let request = hook.request("id", body.into()).expect("a request");
        assert_eq!(request.uri(), "https://hooks.example/T1/token?x=1");
        // The well-known value of this key and text.
        let signature = "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
        assert_eq!(request.headers()["millstream-signature"], signature);
        assert_eq!(request.headers()["authorization"], "Basic dTpwQHNz");
        for wrong in ["hooks.example", "ftp://hooks.example", "https://"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_are_sorted() {
        let after = Some(Duration::from_secs(3));
        for status in [
            200, 204, 299, 301, 400, 401, 404, 408, 410, 422, 425, 429, 500, 503,
        ] {
            let outcome = sort(Answered {
                status,
                after,
                said: "so".into(),
            });
            match status {
                200..=299 => assert_eq!(outcome, Outcome::Taken),
                408 | 425 | 429 | 500 | 503 => {
                    assert_eq!(outcome, Outcome::Later(format!("answered {status}: so"), after));
                }
                _ => assert_eq!(outcome, Outcome::Refused(format!("answered {status}: so"))),
            }
        }
    }
}

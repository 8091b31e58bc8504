//! What the page's examples do not reach: columns with NULLs beside literals, and what is refused.

use super::page::answers;

#[tokio::test]
async fn columns_and_nulls() {
    let texts = [
        Some("https://a.example/x?k=1"),
        None,
        Some("{\"k\":[1,2]}"),
        Some(""),
        Some("https://b.example/y"),
    ];
    let null = "NULL";
    let cases: &[(&str, [&str; 5])] = &[
        ("url_host(text)", ["a.example", null, null, null, "b.example"]),
        ("url_port(text)", ["443", null, null, null, "443"]),
        ("url_query_param(text, 'k')", ["1", null, null, null, null]),
        ("url_query_param(text, NULL)", [null; 5]),
        (
            "url_query_param('https://a.example/?x=3', substr(text, 15, 1))",
            [null; 5],
        ),
        ("parse_url(text, 'QUERY', 'k')", ["1", null, null, null, null]),
        ("json_value(text, '$.k[1]')", [null, null, "2", null, null]),
        ("is_json(text)", ["false", null, "true", "false", "false"]),
        (
            "regexp_extract(text, '([a-z])[.]example/(.)', 2)",
            ["x", null, null, null, "y"],
        ),
        (
            "split_index(text, '/', CAST(char_length(text) - 20 AS BIGINT))",
            ["x?k=1", null, null, null, null],
        ),
        ("split_index('a,b', ',', -1)", [null; 5]),
        ("split_index(text, '', 0)", [null; 5]),
        ("locate(text, 'x')", ["0", null, "0", "1", "0"]),
        ("locate('x', text, 1000)", ["0", null, "0", "0", "0"]),
        ("from_base64(text)", [null, null, null, "", null]),
        ("url_decode('%ff')", [null; 5]),
        ("is_digit(text)", ["false", null, "false", "false", "false"]),
        ("is_decimal('inf')", ["false"; 5]),
        ("user_agent_device(text)", [null; 5]),
        (
            "if(text IS NULL, 'none', 'some')",
            ["some", "none", "some", "some", "some"],
        ),
        ("mod(char_length(text), 2)", ["1", null, "1", "0", "1"]),
    ];
    for (expression, expect) in cases {
        let got = answers(&format!("SELECT {expression} FROM events"), &texts).await;
        assert_eq!(got, Ok(expect.map(str::to_owned).to_vec()), "{expression}");
    }
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let cases = [
        ("json_value(text, '$.a[')", "is not a path"),
        ("json_value(text, 'strict $.a')", "leave the word out"),
        ("json_exists(text, text)", "must be a literal"),
        ("json_exists(text, NULL)", "must be a literal"),
        ("regexp_extract(text, '(')", "is not a regular expression"),
        ("regexp_extract(text, '(a)', 2)", "has no group 2"),
        ("regexp_extract(text, text)", "must be a literal"),
        (
            "parse_url(text, 'host')",
            "there is no part \"host\"; write one of HOST",
        ),
        ("parse_url(text, 'HOST', 'k')", "a key goes with 'QUERY'"),
        (
            "timestampdiff(MONTH, occurred_at, occurred_at)",
            "timestampdiff() counts in one of MICROSECOND",
        ),
        ("mod(1)", "mod() takes 2 arguments, not 1"),
        (
            "date_format(occurred_at, 'yyyy-MM-dd')",
            "write for example '%Y-%m-%d",
        ),
        ("tumble_start()", "tumble_start() has a meaning only for windows"),
    ];
    for (expression, says) in cases {
        let got = answers(&format!("SELECT {expression} FROM events"), &[]).await;
        let message = got.expect_err(expression);
        assert!(message.contains(says), "{expression}: {message}");
    }
}

#[tokio::test]
async fn accessors_agree_with_the_window() {
    let right = [
        "tumble_start()",
        "TUMBLE_START(occurred_at, INTERVAL '1' MINUTE)",
        "TUMBLE_START(e.occurred_at, INTERVAL '60 seconds')",
    ];
    for expression in right {
        let query = format!("SELECT {expression}, count(*) FROM events_by_minute e");
        let got = answers(&query, &[Some("a")]).await;
        assert_eq!(got, Ok(vec!["2026-11-23T12:00:00".to_owned()]), "{expression}");
    }
    let wrong = [
        (
            "TUMBLE_START(occurred_at, INTERVAL '2' MINUTE)",
            "which has size = \"1m\"",
        ),
        ("TUMBLE_END(text, INTERVAL '1' MINUTE)", "event time of its input"),
        ("TUMBLE_END(occurred_at)", "which has size = \"1m\""),
        ("TUMBLE_END(occurred_at, text)", "cannot be read"),
        (
            "HOP_START(occurred_at, INTERVAL '1' MINUTE)",
            "is for hopping windows, and this one is tumbling",
        ),
        ("session_end()", "is for session windows"),
    ];
    for (expression, says) in wrong {
        let query = format!("SELECT {expression}, count(*) FROM events_by_minute");
        let message = answers(&query, &[]).await.expect_err(expression);
        assert!(message.contains(says), "{expression}: {message}");
    }
}

#[tokio::test]
async fn user_agents() {
    let phone = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Mobile \
                 Safari/537.36";
    let tablet = "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) \
                  SamsungBrowser/25.0 Chrome/121.0.0.0 Safari/537.36";
    let ipad = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1";
    let mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4.1 \
               Safari/605.1.15";
    let linux = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";
    let opera = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 \
                 Safari/537.36 OPR/110.0.0.0";
    let old = "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko";
    let facebook = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                    Mobile/15E148 [FBAN/FBIOS;FBAV/457.0.0.42.91]";
    let cases = [
        (phone, "Chrome 125.0.0.0 Android mobile"),
        (tablet, "Samsung Internet 25.0 Android tablet"),
        (ipad, "Chrome 126.0.6478.54 iOS tablet"),
        (mac, "Safari 17.4.1 macOS desktop"),
        (linux, "Firefox 127.0 Linux desktop"),
        (opera, "Opera 110.0.0.0 Windows desktop"),
        (old, "Internet Explorer 11.0 Windows desktop"),
        (facebook, "Facebook 457.0.0.42.91 iOS mobile"),
        ("curl/8.5.0", "curl 8.5.0 ? bot"),
        (
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Bingbot 2.0 ? bot",
        ),
        (
            "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 Chrome/94.0",
            "Chrome 94.0 webOS ?",
        ),
        ("", "? ? ? ?"),
    ];
    let parts =
        ["browser", "version", "os", "device"].map(|part| format!("coalesce(user_agent_{part}(text), '?')"));
    let query = format!("SELECT concat_ws(' ', {}) FROM events", parts.join(", "));
    for (agent, expect) in cases {
        let got = answers(&query, &[Some(agent)]).await;
        assert_eq!(got, Ok(vec![expect.to_owned()]), "{agent}");
    }
}

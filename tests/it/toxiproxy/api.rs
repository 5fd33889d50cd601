//! The API as a table: what is sent, what must come back.

use serde_json::{Value, json};

use super::{Running, start};

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn error(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(body["status"], self.status);
        (self.status, body["error"].as_str().unwrap().to_owned())
    }
}

async fn call(running: &Running, method: &str, path: &str, body: &str) -> Answer {
    call_as(running, "test", method, path, body).await
}

async fn call_as(running: &Running, agent: &str, method: &str, path: &str, body: &str) -> Answer {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let request = client
        .request(method.parse().unwrap(), format!("{}{path}", running.api))
        .header("user-agent", agent)
        .body(body.to_owned());
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer {
        status,
        headers,
        text: response.text().await.unwrap(),
    }
}

async fn with_proxy() -> Running {
    let running = start().await;
    let body = r#"{"name":"a","listen":"127.0.0.1:0","upstream":"127.0.0.1:1"}"#;
    assert_eq!(call(&running, "POST", "/proxies", body).await.status, 201);
    running
}

#[tokio::test]
async fn refusals_have_the_status_the_text_and_the_order_of_toxiproxy() {
    let running = with_proxy().await;
    for (method, path, body, status, text) in [
        ("POST", "/proxies", "", 400, "bad request body: EOF"),
        (
            "POST",
            "/proxies",
            "{}",
            400,
            "missing required field: name",
        ),
        (
            "POST",
            "/proxies",
            r#"{"name":"a"}"#,
            400,
            "missing required field: upstream",
        ),
        (
            "POST",
            "/proxies",
            r#"{"name":"a","upstream":"u","listen":"bad"}"#,
            409,
            "proxy already exists",
        ),
        (
            "POST",
            "/proxies",
            r#"{"name":"b","upstream":"u","listen":"local373"}"#,
            500,
            "listen tcp: address local373: missing port in address",
        ),
        (
            "POST",
            "/proxies",
            r#"{"name":"b","upstream":"u","listen":"localhost:99999"}"#,
            500,
            "listen tcp: address 99999: invalid port",
        ),
        ("GET", "/proxies/b", "", 404, "proxy not found"),
        ("POST", "/proxies/b", "{", 404, "proxy not found"),
        (
            "PATCH",
            "/proxies/a",
            "{",
            400,
            "bad request body: unexpected EOF",
        ),
        (
            "PATCH",
            "/proxies/a",
            r#"{"listen":"local373"}"#,
            500,
            "address local373: missing port in address",
        ),
        ("DELETE", "/proxies/b", "", 404, "proxy not found"),
        ("GET", "/proxies/b/toxics", "", 404, "proxy not found"),
        ("POST", "/proxies/b/toxics", "{", 404, "proxy not found"),
        (
            "POST",
            "/proxies/a/toxics",
            r#"{"type":"x","stream":"y"}"#,
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
        (
            "POST",
            "/proxies/a/toxics",
            r#"{"type":"latency","stream":""}"#,
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
        (
            "POST",
            "/proxies/a/toxics",
            r#"{"type":"Latency"}"#,
            400,
            "invalid toxic type",
        ),
        ("GET", "/proxies/a/toxics/t", "", 404, "toxic not found"),
        ("PATCH", "/proxies/a/toxics/t", "{", 404, "toxic not found"),
        ("DELETE", "/proxies/a/toxics/t", "", 404, "toxic not found"),
    ] {
        let answer = call(&running, method, path, body).await;
        assert_eq!(
            answer.error(),
            (status, text.to_owned()),
            "{method} {path} {body}"
        );
        assert!(answer.text.ends_with('\n'));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["x-toxiproxy-request-id"].len(), 20);
    }
}

#[tokio::test]
async fn unmatched_requests_are_answered_by_the_router() {
    let running = with_proxy().await;
    for (method, path, status, text) in [
        ("GET", "/", 404, "404 page not found\n"),
        ("GET", "/proxies/", 404, "404 page not found\n"),
        ("GET", "/metrics", 404, "404 page not found\n"),
        ("PUT", "/proxies", 405, ""),
        ("HEAD", "/version", 405, ""),
        ("OPTIONS", "/proxies/a", 405, ""),
        ("GET", "/proxies//a", 301, ""),
    ] {
        let answer = call(&running, method, path, "").await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (status, text),
            "{method} {path}"
        );
        assert!(
            !answer.headers.contains_key("x-toxiproxy-request-id"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn browsers_are_kept_out_of_what_exists() {
    let running = with_proxy().await;
    let answer = call_as(&running, "Mozilla/5.0", "GET", "/version", "").await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (403, "User agent not allowed\n")
    );
    assert_eq!(
        call_as(&running, "Mozilla/5.0", "GET", "/none", "")
            .await
            .status,
        404
    );
    assert_eq!(
        call_as(&running, "mozilla/5.0", "GET", "/version", "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn version_is_byte_for_byte_what_clients_match() {
    let answer = call(&start().await, "GET", "/version", "").await;
    assert_eq!(answer.text, "{\"version\": \"2.12.0-chaos\"}\n");
    assert_eq!(
        answer.headers["content-type"],
        "application/json;charset=utf-8"
    );
}

#[tokio::test]
async fn port_conflict_has_the_exact_text() {
    let running = with_proxy().await;
    let listen = call(&running, "GET", "/proxies/a", "").await.json()["listen"].clone();
    let listen = listen.as_str().unwrap();
    let body = json!({ "name": "b", "listen": listen, "upstream": "u" }).to_string();
    let expected = format!("listen tcp {listen}: bind: address already in use");
    assert_eq!(
        call(&running, "POST", "/proxies", &body).await.error(),
        (500, expected)
    );
}

#[tokio::test]
async fn toxics_are_listed_upstream_first_with_all_their_attributes() {
    let running = with_proxy().await;
    for (body, answer) in [
        (
            r#"{"type":"latency","attributes":{"LATENCY":5}}"#,
            r#"{"attributes":{"latency":5,"jitter":0},"name":"latency_downstream","type":"latency","stream":"downstream","toxicity":1}"#,
        ),
        (
            r#"{"type":"noop","stream":"UPSTREAM","toxicity":0.2}"#,
            r#"{"attributes":{},"name":"noop_UPSTREAM","type":"noop","stream":"UPSTREAM","toxicity":0.2}"#,
        ),
    ] {
        let created = call(&running, "POST", "/proxies/a/toxics", body).await;
        assert_eq!((created.status, created.text.as_str()), (200, answer));
    }
    let listed = call(&running, "GET", "/proxies/a/toxics", "").await.json();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|toxic| &toxic["name"])
        .collect();
    assert_eq!(names, ["noop_UPSTREAM", "latency_downstream"]);
    let again = r#"{"name":"noop_UPSTREAM","type":"noop","stream":"downstream"}"#;
    assert_eq!(
        call(&running, "POST", "/proxies/a/toxics", again)
            .await
            .error()
            .0,
        409
    );
}

#[tokio::test]
async fn failed_update_of_a_toxic_keeps_what_came_before_the_failure() {
    let running = with_proxy().await;
    call(
        &running,
        "POST",
        "/proxies/a/toxics",
        r#"{"type":"latency","name":"t"}"#,
    )
    .await;
    let update = r#"{"attributes":{"latency":77,"jitter":"x"},"toxicity":0.5}"#;
    assert_eq!(
        call(&running, "PATCH", "/proxies/a/toxics/t", update)
            .await
            .status,
        400
    );
    let toxic = call(&running, "GET", "/proxies/a/toxics/t", "")
        .await
        .json();
    assert_eq!(
        (&toxic["attributes"]["latency"], &toxic["toxicity"]),
        (&json!(77), &json!(1))
    );
    let update = r#"{"attributes":{"jitter":3}}"#;
    let toxic = call(&running, "POST", "/proxies/a/toxics/t", update)
        .await
        .json();
    assert_eq!(toxic["attributes"], json!({ "latency": 77, "jitter": 3 }));
}

#[tokio::test]
async fn populate_checks_all_then_creates_one_by_one() {
    let running = with_proxy().await;
    let empty = call(&running, "POST", "/populate", "[]").await;
    assert_eq!(
        (empty.status, empty.text.as_str()),
        (201, r#"{"proxies":null}"#)
    );
    let bad = r#"[{"name":"b","upstream":"u"},{"name":"c"}]"#;
    let refused = call(&running, "POST", "/populate", bad).await;
    assert_eq!(
        refused.text,
        r#"{"error":"missing required field: upstream at proxy 2","status":400,"proxies":null}"#
    );
    assert_eq!(call(&running, "GET", "/proxies/b", "").await.status, 404);
    let half = r#"[{"name":"b","upstream":"u","listen":"127.0.0.1:0"},{"name":"c","upstream":"u","listen":"x"}]"#;
    let refused = call(&running, "POST", "/populate", half).await;
    assert_eq!(
        (
            refused.status,
            refused.json()["proxies"].as_array().unwrap().len()
        ),
        (500, 1)
    );
    assert_eq!(refused.headers["content-type"], "application/json");
    assert_eq!(call(&running, "GET", "/proxies/b", "").await.status, 200);
}

#[tokio::test]
async fn populate_leaves_a_proxy_at_the_same_place_untouched_and_replaces_another() {
    let running = with_proxy().await;
    call(&running, "POST", "/proxies/a/toxics", r#"{"type":"noop"}"#).await;
    let listen = call(&running, "GET", "/proxies/a", "").await.json()["listen"].clone();
    let same =
        json!([{ "name": "a", "listen": listen, "upstream": "127.0.0.1:1", "enabled": false }]);
    let kept = call(&running, "POST", "/populate", &same.to_string())
        .await
        .json();
    assert_eq!(kept["proxies"][0]["enabled"], true);
    assert_eq!(kept["proxies"][0]["toxics"].as_array().unwrap().len(), 1);
    let other = json!([{
        "name": "a", "listen": listen, "upstream": "127.0.0.1:2",
        "toxics": [{ "type": "latency", "attributes": { "latency": 9 } }],
    }]);
    let replaced = call(&running, "POST", "/populate", &other.to_string()).await;
    assert_eq!(replaced.status, 201, "{}", replaced.text);
    let replaced = replaced.json();
    assert_eq!(replaced["proxies"][0]["listen"], listen);
    assert_eq!(
        replaced["proxies"][0]["toxics"][0]["attributes"]["latency"],
        9
    );
}

#[tokio::test]
async fn proxies_are_sorted_and_show_only_what_clients_know() {
    let running = start().await;
    assert_eq!(call(&running, "GET", "/proxies", "").await.text, "{}");
    for name in ["b", "a"] {
        let body = json!({ "name": name, "listen": "x", "upstream": "u", "enabled": false });
        assert_eq!(
            call(&running, "POST", "/proxies", &body.to_string())
                .await
                .status,
            201
        );
    }
    let shown = |name: &str| {
        format!(
            r#""{name}":{{"name":"{name}","listen":"x","upstream":"u","enabled":false,"toxics":[]}}"#
        )
    };
    let expected = format!("{{{},{}}}", shown("a"), shown("b"));
    assert_eq!(call(&running, "GET", "/proxies", "").await.text, expected);
    assert_eq!(call(&running, "DELETE", "/proxies/a", "").await.status, 204);
    assert_eq!(
        call(&running, "POST", "/reset", "nonsense").await.status,
        500
    );
}

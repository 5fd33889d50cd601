//! Both servers as processes: flags, configuration, log, metrics.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::super::{address, read_end, read_exact, within};
use super::{Kind, Request, Server, on_each, on_each_with};

const BOTH: [Kind; 2] = [Kind::Chaos, Kind::Toxiproxy];

/// What a command line without a server prints: exit code, standard output, standard error.
async fn run(kind: Kind, arguments: &[&str]) -> Option<(Option<i32>, String, String)> {
    let mut command = kind.command()?;
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within("the end of the process", command.output())
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some((
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    ))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn version_is_printed_and_unknown_flags_are_refused() {
    for kind in BOTH {
        for flag in ["-version", "--version", "-version=true", "-version=1"] {
            let Some((code, output, _)) = run(kind, &[flag]).await else {
                continue;
            };
            assert_eq!(code, Some(0));
            assert!(
                output.starts_with("toxiproxy-server version 2.12.0"),
                "{output}"
            );
        }
        for arguments in [
            &["-nope"][..],
            &["-port"],
            &["-seed", "x"],
            &["-proxy-metrics=x"],
        ] {
            if let Some((code, _, error)) = run(kind, arguments).await {
                assert_eq!(code, Some(2), "{kind:?} {arguments:?} {error}");
            }
        }
    }
}

#[tokio::test]
async fn flags_are_taken_as_go_takes_them() {
    for arguments in [
        &["-seed", "-5"][..],
        &["--seed=7", "-proxy-metrics=true", "--runtime-metrics"],
        &["-proxy-metrics=t", "-runtime-metrics=F", "-version=0"],
        &["-config", ""],
    ] {
        on_each_with(arguments, async |server| {
            server.done("GET", "/version", "").await;
        })
        .await;
    }
}

#[tokio::test]
async fn configuration_creates_proxies_as_populate_does() {
    let config = file(
        r#"[{"name":"on","listen":"127.0.0.1:0","upstream":"u"},{"Name":"off","upstream":"v","enabled":false}]"#,
    );
    let path = config.path().to_str().unwrap();
    on_each_with(&["-config", path], async |server| {
        let proxies = server.done("GET", "/proxies", "").await.json();
        assert_eq!(proxies["on"]["enabled"], true);
        assert_eq!(proxies["off"]["enabled"], false);
    })
    .await;
}

#[tokio::test]
async fn configuration_that_cannot_be_used_is_logged_and_the_server_runs() {
    let broken = file("[{]");
    let incomplete = file(r#"[{"name":"a","upstream":"u"},{"name":"b"}]"#);
    for path in [
        "/nonexistent/config.json",
        broken.path().to_str().unwrap(),
        incomplete.path().to_str().unwrap(),
    ] {
        on_each_with(&["-config", path], async |mut server| {
            assert_eq!(server.done("GET", "/proxies", "").await.text, "{}");
            let line = server
                .line(|line| line.contains(r#""level":"error""#))
                .await;
            let line: Value = serde_json::from_str(&line).unwrap();
            assert!(line["error"].is_string(), "{line}");
        })
        .await;
    }
}

#[tokio::test]
async fn configuration_may_carry_toxics_with_ours() {
    let config =
        file(r#"[{"name":"a","listen":"127.0.0.1:0","upstream":"u","toxics":[{"type":"noop"}]}]"#);
    let path = config.path().to_str().unwrap();
    on_each_with(&["-config", path], async |server| {
        let toxics = server.done("GET", "/proxies/a/toxics", "").await.json();
        let expected = server.differs("toxics-with-proxies", 0, 1);
        assert_eq!(toxics.as_array().unwrap().len(), expected);
    })
    .await;
}

#[tokio::test]
async fn taken_port_of_the_api_ends_ours_and_leaves_the_original_without_api() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = address(&taken).port().to_string();
    let arguments = ["-host", "127.0.0.1", "-port", &port];
    let (code, _, error) = run(Kind::Chaos, &arguments).await.unwrap();
    assert_eq!(code, Some(4));
    assert!(error.contains("in use") && error.contains(&port), "{error}");
    let Some(mut command) = Kind::Toxiproxy.command() else {
        return;
    };
    command.args(arguments);
    let mut server = Server::spawn(Kind::Toxiproxy, command, address(&taken));
    server.line(|line| line.contains("in use")).await;
    assert_eq!(server.process.try_wait().unwrap(), None, "it goes on");
}

#[tokio::test]
async fn server_that_is_told_to_end_closes_everything_and_ends_well() {
    for signal in [Signal::INT, Signal::TERM] {
        on_each(async |mut server| {
            let upstream = super::super::echo().await.to_string();
            let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
            let mut caller = TcpStream::connect(&listen).await.unwrap();
            caller.write_all(b"x").await.unwrap();
            assert_eq!(read_exact(&mut caller, 1).await, "x");
            let id = Pid::from_raw(server.process.id().unwrap().cast_signed()).unwrap();
            kill_process(id, signal).unwrap();
            let ended = within("the end of the process", server.process.wait()).await;
            assert_eq!(ended.unwrap().code(), Some(0), "{signal:?}");
            read_end(&mut caller).await;
            assert!(TcpStream::connect(&listen).await.is_err());
        })
        .await;
    }
}

#[tokio::test]
async fn server_of_a_parent_ends_with_its_standard_input() {
    let mut command = Kind::Chaos.command().unwrap();
    command
        .args(["--port", "0", "--end-at-eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut server = command.spawn().unwrap();
    let mut input = server.stdin.take().unwrap();
    let output = server.stdout.take().unwrap();
    let line = within("the address", BufReader::new(output).lines().next_line()).await;
    assert!(line.unwrap().unwrap().contains("address"));
    input.write_all(b"not yet\n").await.unwrap();
    assert_eq!(server.try_wait().unwrap(), None);
    drop(input);
    let ended = within("the end of the process", server.wait()).await;
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn log_is_lines_of_json_on_standard_output() {
    on_each(async |server| {
        server.proxy("a", "127.0.0.1:0", "u").await;
        let mut server = server;
        let line = server.line(|line| line.contains("Started proxy")).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "info");
        assert_eq!(line["message"], "Started proxy");
        assert_eq!(line["name"], "a");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    })
    .await;
}

#[tokio::test]
async fn log_says_no_more_than_its_level() {
    for kind in BOTH {
        let arguments = ["-config", "/nonexistent"];
        let level = [("LOG_LEVEL", "ERROR")];
        let Some(mut server) = Server::start_with(kind, &arguments, &level).await else {
            continue;
        };
        server.line(|line| line.contains("config")).await;
        server.proxy("a", "127.0.0.1:0", "u").await;
        let output = server.output().await;
        let levels = output.lines().filter(|line| line.contains(r#""level":"#));
        assert!(
            levels
                .clone()
                .all(|line| line.contains(r#""level":"error""#)),
            "{kind:?}: {output}"
        );
        assert_eq!(levels.count(), 1, "{kind:?}: {output}");
    }
}

#[tokio::test]
async fn free_port_of_the_api_is_told_by_ours_only() {
    for kind in BOTH {
        let Some(mut command) = kind.command() else {
            continue;
        };
        command.args(["-host", "127.0.0.1", "-port", "0"]);
        let mut server = Server::spawn(kind, command, "127.0.0.1:0".parse().unwrap());
        let line = server.line(|line| line.contains("address")).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let told = line["address"].as_str().unwrap();
        assert_eq!(
            told == "127.0.0.1:0",
            server.differs("free-port", true, false),
            "{line}"
        );
        if kind == Kind::Chaos {
            TcpStream::connect(told).await.unwrap();
        }
    }
}

#[tokio::test]
async fn address_is_the_first_line_however_much_a_configuration_starts() {
    let proxy = |number| {
        let name = format!("proxy-{number}");
        serde_json::json!({ "name": name, "listen": "127.0.0.1:0", "upstream": "u" })
    };
    let proxies: Vec<Value> = (0..100).map(proxy).collect();
    let config = file(&Value::from(proxies).to_string());
    let mut command = Kind::Chaos.command().unwrap();
    command
        .args(["-host", "127.0.0.1", "-port", "0", "-config"])
        .arg(config.path());
    let mut server = Server::spawn(Kind::Chaos, command, "127.0.0.1:0".parse().unwrap());
    let first = server.line(|_| true).await;
    let line: Value = serde_json::from_str(&first).unwrap();
    server.api = line["address"].as_str().expect(&first).parse().unwrap();
    let proxies = server.done("GET", "/proxies", "").await.json();
    assert_eq!(proxies.as_object().unwrap().len(), 100);
}

#[tokio::test]
async fn metrics_count_bytes_by_direction() {
    on_each_with(&["-proxy-metrics"], async |server| {
        let upstream = super::super::echo().await.to_string();
        let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        caller.write_all(b"12345").await.unwrap();
        assert_eq!(read_exact(&mut caller, 5).await, "12345");
        caller.shutdown().await.unwrap();
        assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
        for direction in ["upstream", "downstream"] {
            for name in ["received", "sent"] {
                let line = format!(
                    "toxiproxy_proxy_{name}_bytes_total{{direction=\"{direction}\",listener=\"{listen}\",proxy=\"a\",upstream=\"{upstream}\"}} 5\n"
                );
                within("the count", async {
                    while !server.done("GET", "/metrics", "").await.text.contains(&line) {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
            }
        }
        let page = server.done("POST", "/metrics", "").await;
        assert_eq!(page.header("x-toxiproxy-request-id").map(str::len), Some(20));
        assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        assert!(page.text.contains("# TYPE toxiproxy_proxy_sent_bytes_total counter\n"));
        assert!(!page.text.contains("process_"));
    })
    .await;
}

#[tokio::test]
async fn metrics_count_open_connections_with_ours_only() {
    on_each_with(&["-proxy-metrics"], async |server| {
        let upstream = super::super::echo().await.to_string();
        let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
        let mut caller = TcpStream::connect(&listen).await.unwrap();
        caller.write_all(b"12345").await.unwrap();
        assert_eq!(read_exact(&mut caller, 5).await, "12345");
        let page = server.done("GET", "/metrics", "").await.text;
        let counted = page.lines().any(|line| {
            line.starts_with("toxiproxy_proxy_sent_bytes_total{") && line.ends_with(" 5")
        });
        assert_eq!(counted, server.differs("live-metrics", false, true));
    })
    .await;
}

#[tokio::test]
async fn metrics_of_ours_tell_what_connections_and_toxics_did() {
    let server = Server::start(Kind::Chaos, &["-proxy-metrics"])
        .await
        .unwrap();
    let upstream = super::super::echo().await.to_string();
    let listen = server.proxy("a", "127.0.0.1:0", &upstream).await;
    for toxic in [
        r#"{"type":"noop"}"#,
        r#"{"type":"latency","attributes":{"latency":1}}"#,
    ] {
        server.done("POST", "/proxies/a/toxics", toxic).await;
    }
    let mut caller = TcpStream::connect(&listen).await.unwrap();
    caller.write_all(b"12345").await.unwrap();
    assert_eq!(read_exact(&mut caller, 5).await, "12345");
    let page = server.done("GET", "/metrics", "").await.text;
    for line in [
        r#"chaos_proxy_connections_open{proxy="a"} 1"#,
        r#"chaos_proxy_connections_total{event="accepted",proxy="a"} 1"#,
        r#"chaos_proxy_connections_total{event="refused",proxy="a"} 0"#,
        r#"chaos_toxic_connections_total{effect="touched",proxy="a",toxic="noop_downstream"} 0"#,
        r#"chaos_toxic_connections_total{effect="touched",proxy="a",toxic="latency_downstream"} 1"#,
        r#"chaos_toxic_bytes_total{effect="delayed",proxy="a",toxic="latency_downstream"} 5"#,
        r#"chaos_toxic_bytes_total{effect="dropped",proxy="a",toxic="latency_downstream"} 0"#,
    ] {
        assert!(page.lines().any(|it| it == line), "{line}\n{page}");
    }
}

#[tokio::test]
async fn metrics_of_the_process_have_their_usual_names() {
    on_each_with(&["-runtime-metrics"], async |server| {
        let page = server.done("GET", "/metrics", "").await.text;
        for name in [
            "process_cpu_seconds_total",
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_virtual_memory_bytes",
        ] {
            assert!(page.lines().any(|line| line.starts_with(name)), "{name}");
        }
        let go = page.contains("go_goroutines");
        assert_eq!(go, server.differs("runtime-metrics", true, false));
        assert!(!page.contains("toxiproxy_proxy_"));
    })
    .await;
}

#[tokio::test]
async fn calls_without_the_token_are_refused() {
    let token = file("secret\n");
    let path = token.path().to_str().unwrap();
    let server = Server::start(Kind::Chaos, &["--token-file", path])
        .await
        .unwrap();
    let get = || Request::new("GET", "/proxies", "");
    for request in [
        get(),
        get().with("authorization", "Bearer wrong"),
        get().with("authorization", "Bearer secret2"),
        get().with("authorization", "Bearer "),
        get().with("authorization", "secret"),
    ] {
        let answer = server.call(&request).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["error"], "missing or wrong bearer token");
    }
    let answer = server
        .call(&get().with("authorization", "Bearer secret"))
        .await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
}

#[tokio::test]
async fn empty_token_is_refused_and_lets_nobody_in() {
    for empty in ["", " \n"] {
        let mut command = Kind::Chaos.command().unwrap();
        command
            .args(["-host", "127.0.0.1", "-port", "0"])
            .env("CHAOS_PROXY_TOKEN", empty)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = within("the end of the process", command.output())
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("`CHAOS_PROXY_TOKEN` is empty"), "{error}");
        assert!(output.stdout.is_empty(), "no address is announced");
    }
    let token = [("CHAOS_PROXY_TOKEN", "secret")];
    let server = Server::start_with(Kind::Chaos, &[], &token).await.unwrap();
    let get = || Request::new("GET", "/proxies", "");
    assert_eq!(server.call(&get()).await.status, 401);
    let admitted = get().with("authorization", "Bearer secret");
    assert_eq!(server.call(&admitted).await.status, 200);
}

#[tokio::test]
async fn toxics_under_a_lease_go_when_it_ends() {
    let server = Server::start(Kind::Chaos, &[]).await.unwrap();
    server.proxy("a", "127.0.0.1:0", "u").await;
    let under = |lease| {
        Request::new("POST", "/proxies/a/toxics", r#"{"type":"noop"}"#).with("x-chaos-lease", lease)
    };
    assert_eq!(
        server.call(&under("mine")).await.status,
        404,
        "no lease yet"
    );
    let short = Request::new("PUT", "/lease/mine", r#"{"ttl_seconds":14}"#);
    assert_eq!(server.call(&short).await.status, 400);
    let lease = server
        .done("PUT", "/lease/mine", r#"{"ttl_seconds":15}"#)
        .await;
    assert_eq!(lease.text, r#"{"id":"mine","ttl_seconds":15}"#);
    assert_eq!(server.call(&under("mine")).await.status, 200);
    server
        .done(
            "POST",
            "/proxies/a/toxics",
            r#"{"type":"noop","stream":"upstream"}"#,
        )
        .await;
    server.done("DELETE", "/lease/mine", "").await;
    let left = server.done("GET", "/proxies/a/toxics", "").await.json();
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(left[0]["name"], "noop_upstream");
}

#[tokio::test]
async fn toxics_that_come_with_their_proxies_go_with_the_lease_too() {
    let server = Server::start(Kind::Chaos, &[]).await.unwrap();
    let proxy = |name: &str| {
        format!(
            r#"{{"name":"{name}","listen":"127.0.0.1:0","upstream":"u","toxics":[{{"type":"noop"}}]}}"#
        )
    };
    server.done("POST", "/proxies", &proxy("others")).await;
    let set = async |path: &str, body: &str| {
        let call = Request::new("POST", path, body).with("x-chaos-lease", "mine");
        server.call(&call).await.status
    };
    assert_eq!(set("/proxies", &proxy("a")).await, 404, "no lease yet");
    let one = format!("[{}]", proxy("a"));
    assert_eq!(set("/populate", &one).await, 404, "no lease yet");
    server
        .done("PUT", "/lease/mine", r#"{"ttl_seconds":15}"#)
        .await;
    assert_eq!(set("/proxies", &proxy("a")).await, 201);
    let two = format!("[{},{}]", proxy("b"), proxy("c"));
    assert_eq!(set("/populate", &two).await, 201);
    server.done("DELETE", "/lease/mine", "").await;
    let left = server.done("GET", "/proxies", "").await.json();
    let toxics = |name: &str| left[name]["toxics"].as_array().unwrap().len();
    assert_eq!(["a", "b", "c", "others"].map(toxics), [0, 0, 0, 1]);
}

#[tokio::test]
async fn calls_are_logged_by_ours_only_when_asked_for() {
    on_each(async |server| {
        server.done("GET", "/version", "").await;
        let logged = server.differs("log-level", true, false);
        let output = server.output().await;
        assert_eq!(output.contains(r#""level":"debug""#), logged, "{output}");
    })
    .await;
}

#[tokio::test]
async fn body_beyond_the_limit_is_refused_by_ours() {
    on_each(async |server| {
        let filling = "x".repeat(16 << 20);
        let body = format!(r#"{{"name":"a","upstream":"u","enabled":false,"x":"{filling}"}}"#);
        let answer = server.call(&Request::new("POST", "/proxies", &body)).await;
        assert_eq!(answer.status, server.differs("body-limit", 201, 400));
    })
    .await;
}

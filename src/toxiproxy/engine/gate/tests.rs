//! Whatever bytes come, however they are cut: nothing that is not meant is changed, and nothing panics.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::toxiproxy::clock::MILLISECOND;
use crate::toxiproxy::engine::Stats;
use crate::toxiproxy::requests::RequestLog;

/// A connection without sockets.
struct Wire {
    gate: Gate,
    log: ConnectionLog,
    identity: Identity,
    chains: [Chain; 2],
    now: Nanos,
}

impl Wire {
    fn new(attributes: &str) -> Self {
        let mut wire = Self {
            gate: Gate::default(),
            log: ConnectionLog::new(
                Arc::<RequestLog>::default(),
                "p".into(),
                1,
                None,
                Arc::<Stats>::default(),
            ),
            identity: Identity {
                seed: 1,
                proxy: "p".into(),
                number: 1,
            },
            chains: [Stream::Upstream, Stream::Downstream].map(Chain::new),
            now: 1,
        };
        wire.set(&[("http", attributes)]);
        wire
    }

    /// Goes over to these toxics: those of the same type and place stay the same.
    fn set(&mut self, toxics: &[(&str, &str)]) {
        let of = |(id, (kind, attributes)): (u64, &(&str, &str))| {
            Arc::new(ToxicSpec::of(id, kind, Stream::Upstream, attributes))
        };
        let set = ToxicSet {
            generation: 1,
            toxics: (1..).zip(toxics).map(of).collect(),
        };
        self.gate.adopt(&set);
        for chain in &mut self.chains {
            chain.adopt(&set, &self.identity, self.now).unwrap();
        }
    }

    fn send(&mut self, stream: Stream, data: &[u8]) {
        let mut data = Bytes::copy_from_slice(data);
        let now = self.now;
        for span in self
            .log
            .entered(stream, &data, now, self.gate.wants_heads())
        {
            let piece = Piece {
                data: data.split_to(span.length),
                at: now,
                request: span.request,
                part: span.part,
            };
            let around = Surroundings {
                log: &self.log,
                identity: &self.identity,
                now,
            };
            let chain = &mut self.chains[stream as usize];
            let head = span.head.as_deref();
            self.gate.enter(stream, piece, head, chain, &around);
        }
        self.advance();
    }

    fn advance(&mut self) {
        for stream in [Stream::Upstream, Stream::Downstream] {
            let around = Surroundings {
                log: &self.log,
                identity: &self.identity,
                now: self.now,
            };
            let chain = &mut self.chains[stream as usize];
            self.gate.advance(stream, chain, &around);
            chain.advance(self.now, &Vec::new).unwrap();
        }
    }

    fn finish(&mut self, stream: Stream) {
        let chain = &mut self.chains[stream as usize];
        self.gate.end(stream, Ending::Finished, chain);
        self.advance();
    }

    /// What has come through since the last look; ends as `|FIN`, `|RST`, `|CLOSE`.
    fn came(&mut self, stream: Stream) -> String {
        let out = &mut self.chains[stream as usize].out;
        let items = std::iter::from_fn(|| out.pop());
        items.map(crate::toxiproxy::toxics::bench::show).collect()
    }

    /// Ends a direction, and gives the bytes that came through.
    fn end(&mut self, stream: Stream) -> Vec<u8> {
        self.finish(stream);
        let chain = &mut self.chains[stream as usize];
        let items = std::iter::from_fn(|| chain.out.pop());
        let bytes = items.filter_map(|item| match item {
            Item::Data(piece) => Some(piece.data.to_vec()),
            Item::End(_) => None,
        });
        bytes.flatten().collect()
    }
}

/// Something that is HTTP, nearly HTTP, or nothing of the kind.
fn fragment(stream: Stream) -> BoxedStrategy<Vec<u8>> {
    let known: &[&str] = match stream {
        Stream::Upstream => &[
            "GET /a HTTP/1.1\r\n\r\n",
            "POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "PUT /d HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            "GET /e HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "HEAD /f HTTP/1.0\r\n\r\n",
            "\r\n",
            "GET",
        ],
        Stream::Downstream => &[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
            "HTTP/1.1 99",
        ],
    };
    let known: Vec<Vec<u8>> = known.iter().map(|text| text.as_bytes().to_vec()).collect();
    prop_oneof![
        8 => prop::sample::select(known),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
    .boxed()
}

/// What is sent each way, whose turn it is, and how much is read at once.
type Talk = (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<(bool, usize)>);

fn talk() -> impl Strategy<Value = Talk> {
    (
        prop::collection::vec(fragment(Stream::Upstream), 0..8),
        prop::collection::vec(fragment(Stream::Downstream), 0..8),
        prop::collection::vec((any::<bool>(), 1..60_usize), 1..40),
    )
}

/// Has both sides talk, and gives what was sent and what came through, each way.
fn carry(wire: &mut Wire, (requests, answers, turns): &Talk) -> [(Vec<u8>, Vec<u8>); 2] {
    let sent = [requests.concat(), answers.concat()];
    let streams = [Stream::Upstream, Stream::Downstream];
    let mut places = [0, 0];
    for (downstream, most) in turns {
        let way = usize::from(*downstream);
        let end = sent[way].len().min(places[way] + most);
        wire.send(streams[way], &sent[way][places[way]..end]);
        places[way] = end;
    }
    for way in [0, 1] {
        wire.send(streams[way], &sent[way][places[way]..]);
    }
    let [up, down] = streams.map(|stream| wire.end(stream));
    let [requests, answers] = sent;
    [(requests, up), (answers, down)]
}

proptest! {
    #[test]
    fn what_is_not_meant_passes_byte_for_byte(talk in talk()) {
        let mut wire = Wire::new(r#"{"status":503,"match":{"path":"/never"}}"#);
        for (sent, came) in carry(&mut wire, &talk) {
            prop_assert_eq!(sent, came);
        }
    }

    #[test]
    fn no_bytes_are_too_strange_for_any_effect(
        talk in talk(),
        effect in prop::sample::select(vec![
            r#""status":503"#,
            r#""abort":true"#,
            r#""drop_response":true"#,
            r#""body":"other""#,
            r#""delay":5"#,
            r#""status":200,"delay":0"#,
        ]),
        every in 1..4_u8,
    ) {
        let mut wire = Wire::new(&format!(r#"{{{effect},"every":{every}}}"#));
        let [(sent, came), _] = carry(&mut wire, &talk);
        prop_assert!(came.len() <= sent.len(), "requests are swallowed, never made");
    }
}

const UP: Stream = Stream::Upstream;
const DOWN: Stream = Stream::Downstream;
const GET: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";

/// What the caller gets when the upstream answers one request with these bytes, cut in every way, and ends.
fn answered(effect: &str, answer: &[u8]) -> String {
    let answers = [1, 7, answer.len()].map(|step| {
        let mut wire = Wire::new(effect);
        wire.send(UP, GET);
        answer.chunks(step).for_each(|part| wire.send(DOWN, part));
        wire.finish(DOWN);
        wire.came(DOWN)
    });
    assert!(
        answers.iter().all(|other| *other == answers[0]),
        "{answers:?}"
    );
    answers[0].clone()
}

#[test]
fn delayed_answer_outlives_an_upstream_that_ends_meanwhile() {
    for (effect, expected) in [(r#""status":503"#, "503"), (r#""abort":true"#, "|RST")] {
        let mut wire = Wire::new(&format!(r#"{{"delay":5,{effect}}}"#));
        wire.send(UP, GET);
        wire.finish(DOWN);
        assert_eq!(wire.came(DOWN), "", "{effect}");
        wire.now += 5 * MILLISECOND;
        wire.advance();
        let came = wire.came(DOWN);
        assert!(came.contains(expected), "{effect}: {came}");
        assert_eq!(came.matches('|').count(), 1, "{effect}: {came}");
    }
}

#[test]
fn swallowed_request_outlives_an_upstream_that_ends_meanwhile() {
    let mut wire = Wire::new(r#"{"status":503}"#);
    wire.send(UP, b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\na");
    wire.finish(DOWN);
    assert_eq!(wire.came(DOWN), "");
    wire.send(UP, b"b");
    let came = wire.came(DOWN);
    assert!(came.contains("503") && came.ends_with("|FIN"), "{came}");
}

#[test]
fn upstream_that_ends_without_its_answer_ends_the_caller_too() {
    let mut wire = Wire::new(r#"{"status":503,"delay":5,"every":2}"#);
    wire.send(UP, &[GET, GET].concat());
    wire.finish(DOWN);
    assert_eq!(
        wire.came(DOWN),
        "|FIN",
        "the second answer has lost its place"
    );
}

#[test]
fn swallowed_request_that_cannot_be_read_to_its_end_lets_nothing_through() {
    let request = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\nzz\r\nGET /secret HTTP/1.1\r\n\r\n";
    for (effect, expected) in [(r#"{"status":503}"#, "503"), (r#"{"abort":true}"#, "")] {
        for step in [1, 7, request.len()] {
            let mut wire = Wire::new(effect);
            request.chunks(step).for_each(|part| wire.send(UP, part));
            wire.finish(UP);
            assert_eq!(wire.came(UP), "|FIN", "{effect}");
            let came = wire.came(DOWN);
            assert!(came.contains(expected), "{effect}: {came}");
            assert_eq!(came.matches('|').count(), 1, "{effect}: {came}");
        }
    }
}

#[test]
fn dropped_answer_leaks_nothing_whatever_its_framing() {
    for answer in [
        "HTTP/1.0 200 OK\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nsecret",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nsecret",
        "HTTP/9.9 what\r\n\r\nsecret",
        "\0secret",
    ] {
        let came = answered(r#"{"drop_response":true}"#, answer.as_bytes());
        assert_eq!(came, "|RST", "{answer:?}");
    }
}

#[test]
fn replaced_body_is_all_that_comes_whatever_the_framing() {
    for head in [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    ] {
        let came = answered(r#"{"body":"other"}"#, format!("{head}secret").as_bytes());
        assert!(came.starts_with("HTTP/1.1 200 OK\r\n"), "{head:?}: {came}");
        assert!(came.ends_with("\r\n\r\nother|FIN"), "{head:?}: {came}");
        assert!(!came.contains("secret"), "{head:?}: {came}");
    }
}

#[test]
fn answer_that_cannot_be_read_passes_as_it_is() {
    for answer in [
        "\x16\x03 not HTTP, and more of it",
        "HTTP/1.1 2x0 what\r\n\r\nmore",
    ] {
        let came = answered(r#"{"body":"other"}"#, answer.as_bytes());
        assert_eq!(came, format!("{answer}|FIN"));
    }
}

#[test]
fn requests_are_read_only_while_there_is_room_for_their_answers() {
    let body = "b".repeat(SMALL_ROOM / 4);
    for delay in [0, 5] {
        let fault = format!(r#"{{"status":503,"delay":{delay},"body":"{body}"}}"#);
        let mut wire = Wire::new(&fault);
        let mut requests = 0;
        while wire.gate.has_room(UP) {
            wire.send(UP, GET);
            requests += 1;
            assert!(requests < 10, "the caller reads none of them");
        }
        wire.now += 5 * MILLISECOND;
        let mut paid = 0;
        while paid < requests {
            wire.advance();
            let came = wire.came(DOWN).matches("503").count();
            assert!(came > 0, "the next is paid when there is room");
            paid += came;
        }
        assert!(wire.gate.has_room(UP));
    }
}

#[test]
fn lifted_delay_does_not_count_in_other_toxics() {
    let (delay, latency) = (r#"{"delay":3600000}"#, r#"{"latency":5}"#);
    let mut wire = Wire::new(delay);
    wire.set(&[("http", delay), ("latency", latency)]);
    wire.send(UP, GET);
    wire.now += 10 * MILLISECOND;
    // The place of the fault is taken by nothing; the latency stays.
    wire.set(&[("noop", "{}"), ("latency", latency)]);
    wire.advance();
    assert_eq!(wire.came(UP), "");
    wire.now += 5 * MILLISECOND;
    wire.advance();
    assert_eq!(wire.came(UP).as_bytes(), GET);
}

#[test]
fn line_ends_instead_of_a_message_are_not_kept_for_ever() {
    let line_ends = "\r\n".repeat(SMALL_ROOM);
    let flood = |wire: &mut Wire, stream| {
        let parts = line_ends.as_bytes().chunks(1000);
        parts.for_each(|part| wire.send(stream, part));
        wire.came(stream)
    };
    for (effect, expected) in [
        (r#"{"body":"other"}"#, &*line_ends),
        (r#"{"drop_response":true}"#, "|RST"),
    ] {
        let mut wire = Wire::new(effect);
        assert!(flood(&mut wire, UP) == line_ends, "{effect}");
        let mut wire = Wire::new(effect);
        wire.send(UP, GET);
        assert!(flood(&mut wire, DOWN) == expected, "{effect}");
    }
}

//! HTTP/1.1 answers written by a fault.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode};

use crate::toxiproxy::requests::Head;

/// Says which toxic wrote an answer, for whoever wonders where it came from.
const TOXIC_FIELD: &str = "x-chaos-toxic";

/// An answer in the place of the upstream's.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: Bytes,
    /// Not a copy: thousands of answers may be owed at a time.
    pub(super) body: Bytes,
    /// The connection ends with it.
    pub(super) closes: bool,
}

impl Answer {
    /// Writes an answer to the request of this head. `stays` when more may follow, as far as the caller
    /// agrees.
    pub(super) fn new(status: u16, body: &Bytes, head: &Head, stays: bool, toxic: &str) -> Self {
        let closes = !(stays && head.keeps_alive());
        let mut bytes = first_line(status);
        if HeaderValue::from_str(toxic).is_ok() {
            field(&mut bytes, TOXIC_FIELD, toxic.as_bytes());
        }
        match (closes, head.is_old()) {
            (true, _) => field(&mut bytes, "connection", b"close"),
            (false, true) => field(&mut bytes, "connection", b"keep-alive"),
            (false, false) => {}
        }
        if !has_no_body(status) {
            if !body.is_empty() {
                field(&mut bytes, "content-type", b"text/plain; charset=utf-8");
            }
            field(&mut bytes, "content-length", length(body).as_bytes());
        }
        bytes.put_slice(b"\r\n");
        let bodiless = has_no_body(status) || head.method == "HEAD";
        Self {
            status,
            head: bytes.freeze(),
            body: if bodiless { Bytes::new() } else { body.clone() },
            closes,
        }
    }
}

/// The head of this answer for another body.
pub(super) fn for_body(head: &Head, body: &Bytes) -> Bytes {
    // They speak of the body that was.
    const OF_THE_BODY: [&str; 6] = [
        "content-length",
        "transfer-encoding",
        "content-encoding",
        "content-md5",
        "trailer",
        "etag",
    ];
    let mut bytes = first_line(head.status);
    for (name, value) in &head.fields {
        if !OF_THE_BODY.iter().any(|of| of.eq_ignore_ascii_case(name)) {
            field(&mut bytes, name, value);
        }
    }
    if head.is_old() && head.field("connection").is_none() {
        field(&mut bytes, "connection", b"close");
    }
    field(&mut bytes, "content-length", length(body).as_bytes());
    bytes.put_slice(b"\r\n");
    bytes.freeze()
}

/// Whether an answer of this status never has a body.
pub(super) fn has_no_body(status: u16) -> bool {
    status < 200 || matches!(status, 204 | 304)
}

fn length(body: &Bytes) -> String {
    body.len().to_string()
}

fn first_line(status: u16) -> BytesMut {
    let known = StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason());
    let mut bytes = BytesMut::with_capacity(256);
    bytes.put_slice(format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or("Fault")).as_bytes());
    bytes
}

fn field(bytes: &mut BytesMut, name: &str, value: &[u8]) {
    bytes.put_slice(name.as_bytes());
    bytes.put_slice(b": ");
    bytes.put_slice(value);
    bytes.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the answer to a request says of the connection.
    fn said(request: &str) -> (Option<String>, bool) {
        let head = Head::of_request(&format!("{request}\r\n\r\n")).unwrap();
        let answer = Answer::new(503, &Bytes::new(), &head, true, "fault");
        let text = String::from_utf8(answer.head.to_vec()).unwrap();
        let mut lines = text.lines();
        let word = lines.find_map(|line| line.strip_prefix("connection: ").map(str::to_owned));
        (word, answer.closes)
    }

    #[test]
    fn connection_stays_where_the_caller_wants_it_and_is_told_so_if_it_is_old() {
        let (close, keep) = (Some("close".to_owned()), Some("keep-alive".to_owned()));
        for (request, expected) in [
            ("GET / HTTP/1.1", (None, false)),
            ("GET / HTTP/1.1\r\nConnection: keep-alive", (None, false)),
            (
                "GET / HTTP/1.1\r\nConnection: x, Close",
                (close.clone(), true),
            ),
            (
                "GET / HTTP/1.1\r\nConnection: x\r\nConnection: close",
                (close.clone(), true),
            ),
            ("GET / HTTP/1.0", (close.clone(), true)),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive", (keep, false)),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive, close",
                (close, true),
            ),
        ] {
            assert_eq!(said(request), expected, "{request:?}");
        }
    }
}

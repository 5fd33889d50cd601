//! The request log: what entered a link, whatever became of it.

use chaos_harness::toxiproxy::wire::{
    Protocol, RequestEnd, RequestRow, Stream, WhenDown, key_hash,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Link, NEVER_MS, read_end, read_exact, toxic, within};

async fn link() -> Link {
    Link::with(|proxy| {
        proxy.protocol = Protocol::Http;
        proxy.correlate = Some("Idempotency-Key".to_owned());
    })
    .await
}

/// The first rows, when there are so many.
async fn rows(link: &Link, count: usize) -> Vec<RequestRow> {
    within("rows", async {
        loop {
            let rows = link.running.client.requests(0, false).await.unwrap().rows;
            if rows.len() >= count {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Sends, and has the other end read it.
async fn pass(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).await.unwrap();
    assert_eq!(read_exact(to, text.len()).await, text);
}

fn shown(row: &RequestRow) -> String {
    let status = row
        .status
        .map_or("-".to_owned(), |status| status.to_string());
    format!(
        "{} {} {} {status} {:?}",
        row.connection, row.method, row.path, row.end
    )
}

#[tokio::test]
async fn kept_alive_and_pipelined_requests_are_told_apart() {
    let link = link().await;
    let (mut caller, mut callee) = link.connect().await;
    let first = "POST /orders?x=1 HTTP/1.1\r\nIdempotency-Key: k1\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: 3\r\n\r\nabc";
    pass(&mut caller, &mut callee, first).await;
    pass(
        &mut callee,
        &mut caller,
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    )
    .await;
    let two = "HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    pass(&mut caller, &mut callee, two).await;
    pass(
        &mut callee,
        &mut caller,
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
    )
    .await;
    let rows = rows(&link, 3).await;
    let lines: Vec<String> = rows.iter().map(shown).collect();
    assert_eq!(
        lines,
        [
            "1 POST /orders 201 Answered",
            "1 HEAD /a 200 Answered",
            "1 GET /b 304 Answered"
        ]
    );
    assert_eq!(rows[0].key, Some(key_hash(b"k1")));
    assert_eq!(
        rows[0].trace.as_deref(),
        Some("0af7651916cd43dd8448eb211c80319c")
    );
    for row in &rows {
        assert!(row.at <= row.arrived.unwrap(), "{row:?}");
        assert!(
            row.arrived <= row.first_byte && row.first_byte <= row.ended,
            "{row:?}"
        );
    }
    assert_eq!(link.stats().await.requests, 3);
}

#[tokio::test]
async fn continue_is_not_the_answer() {
    let link = link().await;
    let (mut caller, mut callee) = link.connect().await;
    pass(
        &mut caller,
        &mut callee,
        "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    )
    .await;
    pass(&mut callee, &mut caller, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(
        link.running.client.requests(0, false).await.unwrap().rows,
        []
    );
    pass(&mut caller, &mut callee, "ok").await;
    pass(&mut callee, &mut caller, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(shown(&rows(&link, 1).await[0]), "1 PUT /a 204 Answered");
}

#[tokio::test]
async fn answer_without_length_ends_with_the_connection() {
    let link = link().await;
    let (mut caller, mut callee) = link.connect().await;
    pass(&mut caller, &mut callee, "GET /a HTTP/1.0\r\n\r\n").await;
    pass(&mut callee, &mut caller, "HTTP/1.0 200 OK\r\n\r\nall").await;
    drop(callee);
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    assert_eq!(shown(&rows(&link, 1).await[0]), "1 GET /a 200 Answered");
}

#[tokio::test]
async fn switched_protocol_and_no_protocol_pass_unharmed() {
    let link = link().await;
    let (mut caller, mut callee) = link.connect().await;
    pass(
        &mut caller,
        &mut callee,
        "GET /ws HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    )
    .await;
    pass(
        &mut callee,
        &mut caller,
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    )
    .await;
    pass(
        &mut callee,
        &mut caller,
        "\0\0 anything GET / HTTP/1.1\r\n\r\n",
    )
    .await;
    pass(
        &mut caller,
        &mut callee,
        "GET /not-a-request HTTP/1.1\r\n\r\n",
    )
    .await;
    let (mut caller, mut callee) = link.connect().await;
    pass(&mut caller, &mut callee, "\x16\x03\x01 hello").await;
    pass(&mut callee, &mut caller, "\x16 hello").await;
    let stats = link.stats().await;
    assert_eq!((stats.requests, stats.opaque), (1, 1));
}

#[tokio::test]
async fn each_way_to_lose_an_answer_has_its_name() {
    let link = link().await;
    let request = "GET /a HTTP/1.1\r\n\r\n";

    let (mut caller, mut callee) = link.connect().await;
    pass(&mut caller, &mut callee, request).await;
    drop(callee);
    assert_eq!(read_end(&mut caller).await, (Vec::new(), None));
    drop(caller);
    assert_eq!(rows(&link, 1).await[0].end, RequestEnd::ClosedByCallee);

    let (mut caller, mut callee) = link.connect().await;
    pass(&mut caller, &mut callee, request).await;
    drop(caller);
    assert_eq!(read_end(&mut callee).await, (Vec::new(), None));
    drop(callee);
    assert_eq!(rows(&link, 2).await[1].end, RequestEnd::ClosedByCaller);

    let (mut caller, mut callee) = link.connect().await;
    link.set(&[toxic("limit_data", Stream::Downstream).with("bytes", 20)])
        .await;
    pass(&mut caller, &mut callee, request).await;
    callee
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789")
        .await
        .unwrap();
    assert_eq!(read_end(&mut caller).await.0.len(), 20);
    let row = rows(&link, 3).await.remove(2);
    assert_eq!((row.end, row.status), (RequestEnd::CutByFault, Some(200)));
    assert_eq!(
        link.stats().await.toxics["limit_data-downstream"].requests,
        1
    );
    link.set(&[]).await;

    let (mut caller, mut callee) = link.connect().await;
    pass(&mut caller, &mut callee, request).await;
    link.running
        .client
        .set_toxics("link", &[toxic("reset", Stream::Upstream)])
        .await
        .unwrap();
    read_end(&mut caller).await;
    assert_eq!(rows(&link, 4).await[3].end, RequestEnd::Reset);

    let mut late = TcpStream::connect(link.listen).await.unwrap();
    late.write_all(request.as_bytes()).await.unwrap();
    read_end(&mut late).await;
    assert_eq!(rows(&link, 5).await[4].end, RequestEnd::Reset);
    let toxic = &link.stats().await.toxics["reset-upstream"];
    assert_eq!((toxic.requests, toxic.reset), (2, 2));
}

#[tokio::test]
async fn request_to_a_dead_callee_is_refused() {
    let mut link = Link::with(|proxy| {
        proxy.protocol = Protocol::Http;
        proxy.when_down = WhenDown::Accept;
    })
    .await;
    let spare = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    drop(std::mem::replace(&mut link.upstream, spare));
    let mut caller = TcpStream::connect(link.listen).await.unwrap();
    caller.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    read_end(&mut caller).await;
    assert_eq!(shown(&rows(&link, 1).await[0]), "1 GET /a - Refused");
}

#[tokio::test]
async fn open_requests_are_shown_once_when_flushed_and_count_as_held() {
    let link = link().await;
    let (mut caller, mut callee) = link.connect().await;
    link.set(&[toxic("latency", Stream::Upstream).with("latency", NEVER_MS)])
        .await;
    caller
        .write_all(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    link.stats_when("both to be logged", |stats| stats.requests == 2)
        .await;
    let flushed = link.running.client.requests(0, true).await.unwrap();
    let ends: Vec<_> = flushed
        .rows
        .iter()
        .map(|row| (row.path.as_str(), row.end))
        .collect();
    assert_eq!(ends, [("/a", RequestEnd::Open), ("/b", RequestEnd::Open)]);
    link.set(&[]).await;
    read_exact(&mut callee, 38).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    pass(&mut callee, &mut caller, answer).await;
    drop(callee);
    read_end(&mut caller).await;
    drop(caller);
    link.stats_when("the end", |stats| stats.connections.open == 0)
        .await;
    assert_eq!(
        link.running
            .client
            .requests(flushed.next, true)
            .await
            .unwrap()
            .rows,
        []
    );
}

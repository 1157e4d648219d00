//! Exchanges over real sockets with a scripted server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::io::Read as _;

use busbar_ems_http::answer::{MAX_BODY, classify};
use busbar_ems_http::client::{Common, header, header_name};
use busbar_ems_http::{Answer, AnswerForm, Client, Endpoint, Error, Post, Reply};
use busbar_kit::tls::TlsFiles;
use common::{LONG, Say, Server, answer};

const PATH: &str = "/api/v1/measurements:batch";

fn client(gzip: bool) -> Client {
    let common = Common {
        headers: [header("X-Site", "north").unwrap()].into_iter().collect(),
        key_header: header_name("Idempotency-Key").unwrap(),
        token_header: header_name("Authorization").unwrap(),
        token_prefix: "Bearer ".into(),
        gzip,
    };
    Client::new(common, &TlsFiles::default(), false).unwrap()
}

async fn post(client: &Client, server: &Server, body: &[u8]) -> Result<Reply, Error> {
    let to = Endpoint::parse(&server.url(), PATH).unwrap();
    let post = Post { body, batch_id: "0b7e", token: Some("hunter2") };
    tokio::time::timeout(LONG, client.post(&to, &post)).await.expect("it must end")
}

#[tokio::test]
async fn a_request_is_what_the_contract_says() {
    let server = Server::start();
    let reply = post(&client(false), &server, b"{\"a\":1}").await.unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (202, b"{\"accepted\":1}".as_slice()));
    let request = server.request();
    assert_eq!(request.line, "POST /api/v1/measurements:batch HTTP/1.1");
    for (name, value) in [
        ("authorization", "Bearer hunter2"),
        ("content-type", "application/json"),
        ("idempotency-key", "0b7e"),
        ("x-site", "north"),
        ("host", &server.address.to_string()),
        ("content-length", "7"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.header("accept-encoding"), None, "answers must not come compressed");
    assert!(request.header("user-agent").unwrap().starts_with("busbar/"));
    assert_eq!(request.body, b"{\"a\":1}");
}

#[tokio::test]
async fn gzip_is_said_and_done() {
    let server = Server::start();
    let text = "{\"a\":1}".repeat(1000);
    post(&client(true), &server, text.as_bytes()).await.unwrap();
    let request = server.request();
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert!(request.body.len() < text.len() / 10);
    let mut plain = String::new();
    flate2::read::GzDecoder::new(request.body.as_slice()).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, text);
}

#[tokio::test]
async fn batches_that_follow_each_other_share_a_connection() {
    let (server, client) = (Server::start(), client(false));
    for _ in 0..3 {
        post(&client, &server, b"{}").await.unwrap();
    }
    let connections: Vec<usize> = (0..3).map(|_| server.request().connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}

#[tokio::test]
async fn headers_of_the_answer_are_read() {
    let server = Server::start();
    server.play([Say::Answer(429, "Retry-After: 17\r\n".into(), "slow down".into())]);
    let reply = post(&client(false), &server, b"{}").await.unwrap();
    let after = Some(std::time::Duration::from_secs(17));
    assert_eq!(classify(&reply, &AnswerForm::default(), 0), Answer::Wait { after });
}

/// The token must not reach the host that a redirect names, nor the same one under another address.
#[tokio::test]
async fn redirects_are_not_followed() {
    let (server, other) = (Server::start(), Server::start());
    for status in [301, 302, 303, 307, 308] {
        for target in [other.url(), "/login".to_owned(), "//other.example".to_owned(), "http://[".to_owned()]
        {
            server.play([Say::Answer(status, format!("Location: {target}\r\n"), String::new())]);
            let reply = post(&client(false), &server, b"{}").await.unwrap();
            assert_eq!(reply.status, status);
            let Answer::Failed(text) = classify(&reply, &AnswerForm::default(), 0) else { panic!() };
            assert!(text.contains("redirects are not followed"), "{text}");
        }
    }
    assert_eq!(server.rest().len(), 20);
    assert!(other.rest().is_empty());
}

#[tokio::test]
async fn broken_answers_are_no_answers() {
    let server = Server::start();
    let whole = answer(202, "", "{\"accepted\":1}");
    let cases: [Vec<u8>; 8] = [
        vec![],
        whole[..whole.len() - 1].to_vec(),
        whole[..20].to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        b"HTTP/1.1 abc\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_vec(),
    ];
    for bytes in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        server.play([Say::Raw(bytes)]);
        let error = post(&client(false), &server, b"{}").await.expect_err(&shown);
        assert!(
            matches!(&error, Error::Broken(text) if !text.contains("measurements")),
            "{shown}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_huge_answer_is_cut_off() {
    let server = Server::start();
    let exact = format!("{{\"x\":\"{}\"}}", "y".repeat(MAX_BODY - 8));
    assert_eq!(exact.len(), MAX_BODY);
    server.play([Say::json(200, &exact), Say::json(200, &format!("{exact} "))]);
    let reply = post(&client(false), &server, b"{}").await.unwrap();
    assert_eq!((reply.body.len(), reply.overflow), (MAX_BODY, false));
    let reply = post(&client(false), &server, b"{}").await.unwrap();
    assert!(reply.overflow && reply.body.len() <= MAX_BODY);
    // Said to be endless.
    let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n".to_vec();
    head.extend(vec![b' '; MAX_BODY + 65_536]);
    server.play([Say::Raw(head)]);
    assert!(post(&client(false), &server, b"{}").await.unwrap().overflow);
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let server = Server::start();
    let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
    for number in 0..200_000 {
        bytes.extend(format!("X-{number}: {}\r\n", "y".repeat(20)).bytes());
    }
    server.play([Say::Raw(bytes)]);
    assert!(matches!(post(&client(false), &server, b"{}").await, Err(Error::Broken(_))));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = Endpoint::parse(&format!("http://{gone}"), PATH).unwrap();
    let client = client(false);
    let post = Post { body: b"{}", batch_id: "k", token: None };
    let Err(Error::Unreachable(text)) = client.post(&to, &post).await else { panic!() };
    assert!(text.contains(&gone.to_string()) && text.contains("refused"), "{text}");
    assert!(matches!(client.reach(&to).await, Err(Error::Unreachable(_))));
    let name = Endpoint::parse("http://no-such-host.invalid", PATH).unwrap();
    assert!(matches!(client.reach(&name).await, Err(Error::Unreachable(_))));
}

/// A caller that gives up ends the exchange: the connection is closed.
#[tokio::test]
async fn dropping_the_exchange_closes_the_connection() {
    let server = Server::start();
    server.play([Say::Hang]);
    let client = client(false);
    let to = Endpoint::parse(&server.url(), PATH).unwrap();
    let post = Post { body: b"{}", batch_id: "k", token: None };
    {
        let exchange = client.post(&to, &post);
        tokio::pin!(exchange);
        // Until the request is there.
        loop {
            tokio::select! {
                biased;
                answer = &mut exchange => panic!("{answer:?}"),
                () = tokio::task::yield_now() => if !server.rest().is_empty() { break },
            }
        }
    }
    let reply = client.post(&to, &post).await.unwrap();
    assert_eq!(reply.status, 202);
    assert_eq!(server.request().connection, 1, "a new connection");
}

/// What cannot be a header is refused before anything is sent.
#[tokio::test]
async fn a_token_with_a_line_break_is_refused() {
    let server = Server::start();
    let to = Endpoint::parse(&server.url(), PATH).unwrap();
    let post = Post { body: b"{}", batch_id: "k", token: Some("hunter2\r\nX: y") };
    let Err(Error::Configuration(text)) = client(false).post(&to, &post).await else { panic!() };
    assert!(!text.contains("hunter2"), "{text}");
    assert!(server.rest().is_empty());
}

//! The control socket against hostile and careless clients.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use serde_json::{Value as Json, json};

use crate::common::{PATIENCE, POINTS, Site, fake_device, until};

fn connect(site: &Site) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(site.data().join("busbar.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn answer(client: &mut BufReader<UnixStream>) -> Json {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn nonsense_is_answered_and_the_connection_lives() {
    let site = Site::new("", "");
    let _gateway = site.start();
    let mode = std::fs::metadata(site.data().join("busbar.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut client = connect(&site);
    for nonsense in
        ["", "{}", "[]", "null", "{\"call\":\"explode\"}", "{\"call\":\"lock\",\"x\":1}", "\u{0}\u{7f}", "{"]
    {
        client.get_mut().write_all(format!("{nonsense}\n").as_bytes()).unwrap();
        let line = answer(&mut client);
        assert_eq!((&line["line"], &line["usage"]), (&json!("failed"), &json!(true)), "{nonsense}: {line}");
    }
    client.get_mut().write_all(b"\xff\xfe\n").unwrap();
    assert_eq!(answer(&mut client)["line"], "failed");
    // Two calls in one write are answered one after another.
    client.get_mut().write_all(b"{\"call\":\"devices\"}\n{\"call\":\"sinks\"}\n").unwrap();
    assert_eq!(answer(&mut client), json!({ "line": "rows", "rows": [] }));
    assert_eq!(answer(&mut client), json!({ "line": "rows", "rows": [] }));
}

#[test]
fn a_line_without_end_is_cut_off() {
    let site = Site::new("", "");
    let _gateway = site.start();
    let mut client = connect(&site);
    let long = vec![b'x'; 70_000];
    // The host may have closed before everything was sent.
    let _ = client.get_mut().write_all(&long);
    let line = answer(&mut client);
    assert!(line["text"].as_str().unwrap().contains("at most"), "{line}");
    let mut rest = Vec::new();
    let closed = client.read_to_end(&mut rest);
    assert!(closed.is_err() || rest.is_empty(), "closed after a line that is too long");
    site.busbar(&["unlock"]).expect(0);
}

#[test]
fn connections_are_bounded_and_free_places_are_used_again() {
    let site = Site::new("", "");
    let _gateway = site.start();
    let held: Vec<_> = (0..16)
        .map(|_| {
            let mut client = connect(&site);
            client.get_mut().write_all(b"{\"call\":\"devices\"}\n").unwrap();
            answer(&mut client);
            client
        })
        .collect();
    let mut one_more = connect(&site);
    let refused = answer(&mut one_more);
    assert!(refused["text"].as_str().unwrap().contains("at most 16"), "{refused}");
    drop(held);
    until("a place", || (site.busbar(&["unlock"]).code == Some(0)).then_some(()));
}

#[test]
fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let site = Site::new("", &fake_device(POINTS));
    let _gateway = site.start();
    for _ in 0..40 {
        let mut client = connect(&site);
        client.get_mut().write_all(b"{\"call\":\"browse\",\"device\":\"m\",\"deadline_ms\":5000}\n").unwrap();
        drop(client);
    }
    until("a place", || (site.busbar(&["read", "m/fixed"]).code == Some(0)).then_some(()));
}

#[test]
fn unknown_names_and_wrong_values_are_the_callers_mistake() {
    let site = Site::new("", &fake_device(POINTS));
    let _gateway = site.start();
    let mut client = connect(&site);
    let mut call = |call: Json| {
        client.get_mut().write_all(format!("{call}\n").as_bytes()).unwrap();
        answer(&mut client)
    };
    for wrong in [
        json!({ "call": "read", "device": "x", "deadline_ms": 1000 }),
        json!({ "call": "read", "device": "m", "points": ["x"], "deadline_ms": 1000 }),
        json!({ "call": "command", "point": "m", "action": "operate", "value": 1 }),
        json!({ "call": "maintenance", "device": "../../etc", "on": true }),
    ] {
        let line = call(wrong.clone());
        assert_eq!((&line["line"], &line["usage"]), (&json!("failed"), &json!(true)), "{wrong}: {line}");
    }
    let line =
        call(json!({ "call": "command", "point": "m/set", "action": "operate", "value": { "a": [1] } }));
    assert_eq!(line["line"], "stage", "{line}");
    assert_eq!(line["answer"]["stage"], "refused", "{line}");
}

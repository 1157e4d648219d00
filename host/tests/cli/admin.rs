//! The admin listener: what is open, what needs the token, what a hostile client can do.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use serde_json::{Value as Json, json};

use crate::common::{PATIENCE, POINTS, Site, fake_device, parse, quality, until};

#[test]
fn three_routes_are_open_and_the_api_is_not() {
    let site = Site::new("", &fake_device(POINTS));
    let _gateway = site.start();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(site.http("GET", path, None, "").unwrap().0, 200, "{path}");
    }
    for path in ["points", "points?device=m", "points/m/fixed", "devices", "plugins", "sinks", "nothing"] {
        let path = format!("/api/v1/{path}");
        for token in [None, Some("wrong"), Some("")] {
            assert_eq!(site.http("GET", &path, token, "").unwrap().0, 401, "{path} {token:?}");
        }
    }
    let mode = std::fs::metadata(site.data().join("admin.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(site.http("GET", "/api/v1/nothing", Some(&site.token()), "").unwrap().0, 404);
}

#[test]
fn points_have_the_documented_form() {
    let site = Site::new("", &fake_device(POINTS));
    let _gateway = site.start();
    let point = until("a good value", || {
        let rows = site.api("/points?device=m");
        rows.as_array()?.iter().find(|row| row["point"] == "m/fixed" && quality(row) == "good").cloned()
    });
    assert_eq!((&point["value"], &point["unit"]), (&json!(231.4), &json!("V")));
    assert!(point["ts"].as_i64().unwrap() > 1_577_836_800_000, "{point}");
    assert_eq!(site.api("/points/m/fixed")["point"], "m/fixed");
    let nobody = site.http("GET", "/api/v1/points?device=nobody", Some(&site.token()), "").unwrap();
    assert_eq!(nobody.0, 404, "{nobody:?}");
    let device = &site.api("/devices")[0];
    assert_eq!(
        (&device["name"], &device["driver"], &device["state"]),
        (&json!("m"), &json!("fake"), &json!("online"))
    );
}

#[test]
fn metrics_are_well_formed() {
    let site = Site::new("", &fake_device(POINTS));
    let _gateway = site.start();
    let text = until("a poll to be counted", || {
        let (_, text) = site.http("GET", "/metrics", None, "").ok()?;
        text.contains("busbar_poll_duration_seconds_bucket{plugin=\"fake\"").then_some(text)
    });
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("busbar_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let family = name.split('{').next().unwrap();
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
        let declared = |name: &str| {
            text.contains(&format!("# TYPE {name} ")) && text.contains(&format!("# HELP {name} "))
        };
        assert!(declared(family) || declared(base), "{line}");
    }
    assert!(text.contains("busbar_process_threads "), "{text}");
}

#[test]
fn commands_need_the_token_even_where_reading_does_not() {
    let site = Site::new("", &fake_device(POINTS));
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("[host.admin]", "[host.admin]\nanonymous_read = true"))
        .unwrap();
    let _gateway = site.start();
    assert_eq!(site.http("GET", "/api/v1/devices", None, "").unwrap().0, 200);
    // A token that is sent must be right.
    assert_eq!(site.http("GET", "/api/v1/devices", Some("wrong"), "").unwrap().0, 401);
    let path = "/api/v1/points/m/set/command";
    assert_eq!(site.http("POST", path, None, "{\"value\":1}").unwrap().0, 401);
    until("the device to be online", || (site.api("/devices")[0]["state"] == "online").then_some(()));
    let token = site.token();
    let post = |path: &str, body: &str| {
        let (status, body) = site.http("POST", path, Some(&token), body).unwrap();
        (status, serde_json::from_str::<Json>(&body).unwrap())
    };
    let (status, answer) = post(path, "{\"value\":42}");
    assert_eq!((status, &answer["stage"]), (200, &json!("finished")), "{answer}");
    let (status, answer) = post(path, "{\"value\":4200}");
    assert_eq!((status, &answer["reason"]), (409, &json!("out_of_range")), "{answer}");
    assert_eq!(post("/api/v1/points/m/nope/command", "{\"value\":1}").0, 404);
    assert_eq!(post(path, "{\"valve\":1}").0, 400);
    assert_eq!(post(path, "nonsense").0, 400);
    assert_eq!(post(path, &format!("\"{}\"", "x".repeat(70_000))).0, 413);
    assert_eq!(post("/api/v1/commands/lock", "").0, 200);
    assert_eq!(post(path, "{\"value\":42}").1["reason"], "locked_out");
    assert_eq!(post("/api/v1/commands/unlock", "").0, 200);
    let audit = format!("{:?}", site.audit());
    assert!(audit.contains("\"api\"") && audit.contains("127.0.0.1"), "{audit}");
}

#[test]
fn hostile_clients_are_answered_or_cut_off() {
    let site = Site::new("", "");
    let _gateway = site.start();
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(site.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        parse(&String::from_utf8_lossy(&answer)).map(|(status, _)| status)
    };
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let refused = |status: Option<u16>| status.is_none_or(|status| (400..500).contains(&status));
    assert!(refused(send(b"\x16\x03\x01\x02\x00\x01\x00")));
    assert!(refused(send(b"GET /\x00 HTTP/1.1\r\n\r\n")));
    assert!(refused(send(format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes())));
    assert!(refused(send(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(40_000)).as_bytes())));
    let huge = "POST /api/v1/points/a/b/command HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n";
    assert_eq!(send(huge.as_bytes()), Some(401), "refused before the body is read");
    assert_eq!(site.http("GET", "/healthz", None, "").unwrap().0, 200);
}

#[test]
fn an_idle_client_is_cut_off() {
    let site = Site::new("", "");
    let _gateway = site.start();
    // Half a head, nothing at all, and a connection kept alive behind an answer.
    let begins = ["GET /healthz HT", "", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"];
    let connect = |begin: &str| {
        let mut stream = TcpStream::connect(site.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begin.as_bytes()).unwrap();
        stream
    };
    // All at once: each is kept for the same time.
    let streams = begins.map(connect);
    for (begin, mut stream) in begins.iter().zip(streams) {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{begin:?}: not closed: {error}"));
    }
}

#[test]
fn beyond_loopback_needs_tls() {
    let site = Site::new("", "");
    let text = std::fs::read_to_string(site.config()).unwrap().replace("127.0.0.1:", "0.0.0.0:");
    std::fs::write(site.config(), text).unwrap();
    assert!(site.busbar(&["run"]).expect(1).text().contains("tls"));
}

#[test]
fn a_taken_address_is_said() {
    let site = Site::new("", "");
    let _taken = std::net::TcpListener::bind(site.admin).unwrap();
    let done = site.busbar(&["run"]).expect(1);
    assert!(done.text().contains(&site.admin.to_string()), "{done:?}");
}

#[test]
fn tls_answers_with_the_configured_certificate() {
    let site = Site::new("", "");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (site.dir.path().join("cert.pem"), site.dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let text = std::fs::read_to_string(site.config()).unwrap();
    let tls = "[host.admin]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }";
    std::fs::write(site.config(), text.replace("[host.admin]", tls)).unwrap();
    let log = std::fs::File::create(site.dir.path().join("log")).unwrap();
    let mut child = site.command(&["run"]).stderr(log).spawn().unwrap();
    let answer = until("an answer over TLS", || tls_get(&site, made.cert.der().clone()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(parse(&answer).unwrap().0, 200, "{answer}");
    // A key that does not fit is a configuration error with the file's name.
    std::fs::write(&key, "nonsense").unwrap();
    let done = site.busbar(&["run"]).expect(1);
    assert!(done.text().contains("key.pem"), "{done:?}");
}

fn tls_get(site: &Site, trusted: rustls::pki_types::CertificateDer<'static>) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(site.admin).ok()?;
    let mut stream = rustls::Stream::new(&mut client, &mut tcp);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    // The end may come without close_notify.
    let _ = stream.read_to_string(&mut answer);
    Some(answer)
}

#[test]
fn a_reload_over_http_answers_as_the_command_line_does() {
    let site = Site::new("", &fake_device(POINTS));
    let _gateway = site.start();
    let path = "/api/v1/reload";
    for token in [None, Some("wrong")] {
        assert_eq!(site.http("POST", path, token, "").unwrap().0, 401, "{token:?}");
    }
    let token = site.token();
    assert_eq!(site.http("GET", path, Some(&token), "").unwrap().0, 405);
    let post = |body: &str| {
        let (status, body) = site.http("POST", path, Some(&token), body).unwrap();
        (status, serde_json::from_str::<Json>(&body).unwrap())
    };
    let (status, answer) = post("");
    assert_eq!((status, &answer["summary"]["outcome"]), (200, &json!("unchanged")), "{answer}");
    assert_eq!(post("{\"dry\": 1}").0, 400);

    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("[[device]]", "[[device]]\nread = false")).unwrap();
    let (status, dry) = post("{\"dry_run\": true}");
    assert_eq!((status, &dry["dry_run"]), (200, &json!(true)), "{dry}");
    assert_eq!(site.busbar(&["reload", "--dry-run", "--json"]).expect(0).json(), dry);
    let (status, answer) = post("{}");
    assert_eq!((status, &answer["summary"]["outcome"]), (200, &json!("applied")), "{answer}");
    assert_eq!(answer["summary"]["devices_changed"][0]["what"], json!(["read"]), "{answer}");

    std::fs::write(site.config(), text.replace("[[device]]", "[[device]]\nraed = false")).unwrap();
    let (status, answer) = post("");
    assert_eq!((status, answer["problems"].as_array().map(Vec::len)), (422, Some(1)), "{answer}");
    let told = site.audit().into_iter().any(|line| {
        line["event"] == "reload"
            && line["origin"]["sink"] == "api"
            && line["origin"]["client"] == "127.0.0.1"
    });
    assert!(told, "{:?}", site.audit());
}

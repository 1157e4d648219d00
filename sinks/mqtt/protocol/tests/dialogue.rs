//! The session against a broker that can misbehave, MQTT 3.1.1 and 5.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use busbar_mqtt::broker::{Broker, Config, Credentials, Script};
use busbar_mqtt::{Error, Event, Message, Options, PublishError, Qos, SendError, Session, Version};
use common::{PATIENCE, VERSIONS, connect, end, message, options, received, send_all};

async fn broker() -> Broker {
    Broker::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn status_is_retained_and_the_end_is_orderly() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut seen = broker.observe("#");
        let mut session = connect(&broker, version).await;
        let mut confirmed = Vec::new();
        send_all(&mut session, &[1, 2, 3], &mut confirmed).await.unwrap();
        assert_eq!(confirmed, [1, 2, 3]);
        let online = received(&mut seen).await;
        assert_eq!((online.topic.as_str(), online.text().as_str()), ("busbar/h/status", "online"));
        assert!(online.retain);
        assert_eq!(online.client, "client-1");
        for expected in ["1", "2", "3"] {
            let value = received(&mut seen).await;
            assert_eq!(
                (value.topic.as_str(), value.text().as_str(), value.qos),
                ("busbar/h/d/p", expected, 1)
            );
        }
        session.send(&message("4"), 4).unwrap();
        assert_eq!(session.close(PATIENCE).await, [Event::Delivered(4)]);
        assert_eq!(received(&mut seen).await.text(), "4");
        assert_eq!(received(&mut seen).await.text(), "offline");
        assert_eq!(broker.retained("busbar/h/status").unwrap(), "offline");
    }
}

#[tokio::test]
async fn a_cut_connection_publishes_the_last_will() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut seen = broker.observe("busbar/h/status");
        let session = connect(&broker, version).await;
        drop(session);
        let mut session = connect(&broker, version).await;
        assert!(matches!(end_of_cut(&broker, &mut session).await, Error::Closed(_)));
        let mut texts = Vec::new();
        while texts.iter().filter(|text| *text == "offline").count() < 2 {
            let message = received(&mut seen).await;
            assert!(message.retain);
            texts.push(message.text());
        }
    }
}

async fn end_of_cut(broker: &Broker, session: &mut Session<u32>) -> Error {
    broker.cut();
    end(session, &mut Vec::new()).await
}

#[tokio::test]
async fn every_quality_of_service() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut seen = broker.observe("busbar/h/d/p");
        let mut session = connect(&broker, version).await;
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for token in 0..100 {
                session.send(&Message { qos, ..message("x") }, token).unwrap();
            }
            let mut confirmed = Vec::new();
            send_all(&mut session, &[], &mut confirmed).await.unwrap();
            assert_eq!(confirmed, (0..100).collect::<Vec<_>>(), "{qos:?}");
            for _ in 0..100 {
                assert_eq!(received(&mut seen).await.qos, qos as u8);
            }
        }
    }
}

/// The broker swallows messages and crashes, twice, with the window full; then everything is sent again.
#[tokio::test]
async fn a_lost_session_loses_nothing() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut seen = broker.observe("busbar/h/d/p");
        let mut open: Vec<u32> = (0..5000).collect();
        let mut confirmed = Vec::new();
        for round in 0..3 {
            let mut session = connect(&broker, version).await;
            if round < 2 {
                // Some are confirmed, then the broker loses what it takes, then it is gone.
                let (good, lost) = open.split_at(700);
                send_all(&mut session, good, &mut confirmed).await.unwrap();
                broker.play(Script { swallow: true, ..Script::default() });
                for token in lost {
                    match session.send(&message(&token.to_string()), *token) {
                        Ok(()) => {}
                        Err(SendError::Full(_)) => break,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                assert!(!session.has_room() && session.unconfirmed() >= 1024);
                let error = end_of_cut(&broker, &mut session).await;
                assert!(matches!(error, Error::Closed(_)), "{error}");
                assert_eq!(session.next().await, Err(error), "the end is final");
                broker.play(Script::default());
                open.retain(|token| !confirmed.contains(token));
            } else {
                send_all(&mut session, &open, &mut confirmed).await.unwrap();
            }
        }
        assert_eq!(confirmed, (0..5000).collect::<Vec<_>>(), "in order, each once");
        let mut arrived = Vec::new();
        while let Ok(message) = seen.try_recv() {
            arrived.push(message.text().parse::<u32>().unwrap());
        }
        assert_eq!(arrived, confirmed);
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_stream_loses_nothing() {
    for version in VERSIONS {
        let broker = broker().await;
        broker.play(Script { close_after: Some(333), ..Script::default() });
        let mut seen = broker.observe("busbar/h/d/p");
        let (mut confirmed, mut rounds) = (Vec::new(), 0);
        while confirmed.len() < 2000 {
            rounds += 1;
            assert!(rounds < 50, "progress in every round");
            let mut session = connect(&broker, version).await;
            let open: Vec<u32> = (0..2000).filter(|token| !confirmed.contains(token)).collect();
            match send_all(&mut session, &open, &mut confirmed).await {
                Ok(()) => {}
                Err(Error::Closed(_)) => {
                    while let Some(event) = session.ready() {
                        common::take(event, &mut confirmed);
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(rounds >= 6, "{rounds}");
        let mut arrived = std::collections::BTreeSet::new();
        while let Ok(message) = seen.try_recv() {
            arrived.insert(message.text().parse::<u32>().unwrap());
        }
        assert_eq!(arrived.len(), 2000, "at least once");
        confirmed.sort_unstable();
        assert_eq!(confirmed, (0..2000).collect::<Vec<_>>(), "confirmed exactly once");
    }
}

#[tokio::test]
async fn withheld_acknowledgements_end_the_session() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut options = options(broker.address(), version);
        options.ack_timeout = Duration::from_millis(200);
        options.window = 10;
        let mut session = Session::<u32>::connect(&options, PATIENCE).await.unwrap();
        let mut confirmed = Vec::new();
        send_all(&mut session, &[1], &mut confirmed).await.unwrap();
        broker.play(Script { withhold_acks: true, ..Script::default() });
        let mut sent = 1;
        while session.has_room() {
            sent += 1;
            session.send(&message("x"), sent).unwrap();
        }
        assert_eq!(session.send(&message("x"), 99), Err(SendError::Full(99)), "back-pressure");
        let error = end(&mut session, &mut confirmed).await;
        assert!(matches!(&error, Error::Lost(text) if text.contains("no acknowledgement")), "{error}");
        assert_eq!(confirmed, [1]);
        assert_eq!(session.unconfirmed(), 10);
    }
}

#[tokio::test]
async fn a_broker_that_answers_no_ping_is_lost_even_when_it_acknowledges() {
    for version in VERSIONS {
        let broker = broker().await;
        broker.play(Script { ignore_pings: true, ..Script::default() });
        let mut options = options(broker.address(), version);
        options.keep_alive = Duration::from_secs(1);
        options.ack_timeout = Duration::from_millis(200);
        let mut session = Session::<u32>::connect(&options, PATIENCE).await.unwrap();
        let error = end(&mut session, &mut Vec::new()).await;
        assert!(matches!(&error, Error::Lost(text) if text.contains("ping")), "{error}");
    }
}

#[tokio::test]
async fn probe_waits_for_the_answer() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut session = connect(&broker, version).await;
        session.probe().await.unwrap();
        broker.play(Script { ignore_pings: true, ..Script::default() });
        assert!(tokio::time::timeout(Duration::from_millis(100), session.probe()).await.is_err());
        broker.cut();
        assert!(matches!(session.probe().await, Err(Error::Closed(_))));
    }
}

#[tokio::test]
async fn repeated_acknowledgements_change_nothing() {
    for version in VERSIONS {
        let broker = broker().await;
        broker.play(Script { double_acks: true, ..Script::default() });
        let mut session = connect(&broker, version).await;
        let mut confirmed = Vec::new();
        let tokens: Vec<u32> = (0..3000).collect();
        send_all(&mut session, &tokens, &mut confirmed).await.unwrap();
        assert_eq!(confirmed, tokens);
    }
}

#[tokio::test]
async fn garbage_ends_the_session_and_confirms_nothing() {
    for version in VERSIONS {
        let broker = broker().await;
        broker.play(Script { garbage_after: Some(4), ..Script::default() });
        let mut session = connect(&broker, version).await;
        let mut confirmed = Vec::new();
        let result = send_all(&mut session, &[1, 2, 3, 4, 5, 6], &mut confirmed).await;
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Nonsense(_)), "{error}");
        // CONNECT, status, 1 and 2 are the first four packets.
        assert!(confirmed.len() <= 2, "{confirmed:?}");
    }
}

#[tokio::test]
async fn oversize_is_refused_before_it_is_sent() {
    let broker = broker().await;
    broker.play(Script { max_packet: Some(1000), ..Script::default() });
    let large = "x".repeat(2000);
    for version in VERSIONS {
        let mut seen = broker.observe("busbar/h/d/p");
        let mut options = options(broker.address(), version);
        options.max_packet = 1500;
        let mut session = Session::<u32>::connect(&options, PATIENCE).await.unwrap();
        let limit = if version == Version::V5 { 1000 } else { 1500 };
        match session.send(&message(&large), 1) {
            Err(SendError::TooLarge { token: 1, size, limit: found }) => {
                assert!(size > 2000 && found == limit, "{size} {found}");
            }
            other => panic!("{other:?}"),
        }
        let mut confirmed = Vec::new();
        send_all(&mut session, &[2], &mut confirmed).await.unwrap();
        assert_eq!(confirmed, [2], "the session lives");
        assert_eq!(received(&mut seen).await.text(), "2");
    }
}

#[tokio::test]
async fn the_window_respects_the_receive_maximum() {
    let broker = broker().await;
    broker.play(Script { receive_maximum: Some(5), withhold_acks: true, ..Script::default() });
    let mut session = connect(&broker, Version::V5).await;
    let mut sent = 0;
    while session.has_room() {
        session.send(&message("x"), sent).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 4, "five with the status");
}

#[tokio::test]
async fn mqtt_5_refusals_are_events() {
    let broker = broker().await;
    let mut session = connect(&broker, Version::V5).await;
    send_all(&mut session, &[], &mut Vec::new()).await.unwrap();
    broker.play(Script { puback_reason: Some(0x87), ..Script::default() });
    session.send(&message("x"), 7).unwrap();
    assert_eq!(session.next().await, Ok(Event::Refused(7, PublishError::NotAuthorized)));
    broker.play(Script { puback_reason: Some(0x97), ..Script::default() });
    session.send(&message("x"), 8).unwrap();
    assert_eq!(session.next().await, Ok(Event::Refused(8, PublishError::QuotaExceeded)));
    broker.play(Script { puback_reason: Some(0x10), ..Script::default() });
    session.send(&message("x"), 9).unwrap();
    assert_eq!(session.next().await, Ok(Event::Delivered(9)), "no matching subscribers is a success");
}

#[tokio::test]
async fn a_lower_maximum_qos_is_named() {
    let broker = broker().await;
    broker.play(Script { max_qos: Some(0), ..Script::default() });
    let error = Session::<u32>::connect(&options(broker.address(), Version::V5), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(text) if text.contains("allows qos 0")), "{error}");
}

#[tokio::test]
async fn refusals_are_named() {
    for version in VERSIONS {
        let broker = broker().await;
        for (code, words) in
            [(1, "set version"), (2, "client id"), (4, "wrong user name or password"), (5, "not authorised")]
        {
            broker.play(Script { refuse: Some(code), ..Script::default() });
            let error =
                Session::<u32>::connect(&options(broker.address(), version), PATIENCE).await.unwrap_err();
            assert!(matches!(&error, Error::Refused(text) if text.contains(words)), "{code}: {error}");
            assert!(error.needs_change());
        }
        broker.play(Script { refuse: Some(3), ..Script::default() });
        let error = Session::<u32>::connect(&options(broker.address(), version), PATIENCE).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error}");
    }
}

#[tokio::test]
async fn credentials() {
    let credentials = vec![Credentials { username: "me".into(), password: "hunter2".into() }];
    let broker = Broker::bind_with("127.0.0.1:0", Config { credentials, tls: None }).await.unwrap();
    for version in VERSIONS {
        let with = |password: &str| Options {
            username: Some("me".into()),
            password: Some(password.into()),
            ..options(broker.address(), version)
        };
        assert!(Session::<u32>::connect(&with("hunter2"), PATIENCE).await.is_ok());
        let error = Session::<u32>::connect(&with("hunter3"), PATIENCE).await.unwrap_err();
        assert!(matches!(&error, Error::Refused(text) if !text.contains("hunter")), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_and_nobody_answering() {
    for version in VERSIONS {
        let broker = broker().await;
        let options = options(broker.address(), version);
        broker.play(Script { mute: true, ..Script::default() });
        let error = Session::<u32>::connect(&options, Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(&error, Error::Unreachable(text) if text.contains("no answer")), "{error}");
        broker.stop().await;
        let error = Session::<u32>::connect(&options, PATIENCE).await.unwrap_err();
        assert!(matches!(&error, Error::Unreachable(text) if text.contains("cannot reach")), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_restarts_gets_everything() {
    for version in VERSIONS {
        let first = broker().await;
        let address = first.address();
        let mut session = Session::<u32>::connect(&options(address, version), PATIENCE).await.unwrap();
        let mut confirmed = Vec::new();
        send_all(&mut session, &[1, 2], &mut confirmed).await.unwrap();
        first.stop().await;
        session.send(&message("3"), 3).unwrap();
        let error = end(&mut session, &mut confirmed).await;
        assert!(matches!(error, Error::Closed(_)), "{error}");
        assert!(matches!(
            Session::<u32>::connect(&options(address, version), PATIENCE).await,
            Err(Error::Unreachable(_))
        ));
        let second = Broker::bind(address).await.unwrap();
        let mut seen = second.observe("busbar/h/d/p");
        let mut session = Session::<u32>::connect(&options(address, version), PATIENCE).await.unwrap();
        send_all(&mut session, &[3], &mut confirmed).await.unwrap();
        assert_eq!(confirmed, [1, 2, 3]);
        assert_eq!(received(&mut seen).await.text(), "3");
    }
}

#[tokio::test]
async fn a_taken_over_session_says_so() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut first = connect(&broker, version).await;
        let mut second = connect(&broker, version).await;
        let error = end(&mut first, &mut Vec::new()).await;
        match version {
            Version::V5 => {
                assert!(matches!(&error, Error::TakenOver(text) if text.contains("client-1")), "{error}")
            }
            Version::V3_1_1 => assert!(matches!(error, Error::Closed(_)), "{error}"),
        }
        second.probe().await.unwrap();
    }
}

#[tokio::test]
async fn subscriptions_bring_commands() {
    for version in VERSIONS {
        let broker = broker().await;
        broker.publish("busbar/h/d/old/set", "stored", 1, true);
        let options =
            Options { subscribe: Some("busbar/h/+/+/set".into()), ..options(broker.address(), version) };
        let mut session = Session::<u32>::connect(&options, PATIENCE).await.unwrap();
        let expected =
            Event::Received { topic: "busbar/h/d/old/set".into(), payload: "stored".into(), retained: true };
        assert_eq!(session.next().await, Ok(expected));
        broker.publish("busbar/h/d/p/set", "now", 1, false);
        broker.publish("busbar/other/d/p/set", "not ours", 1, false);
        broker.publish("busbar/h/d/p/set", "again", 0, false);
        for text in ["now", "again"] {
            let expected =
                Event::Received { topic: "busbar/h/d/p/set".into(), payload: text.into(), retained: false };
            assert_eq!(session.next().await, Ok(expected));
        }
        broker.play(Script { refuse_subscriptions: true, ..Script::default() });
        let error = Session::<u32>::connect(&options, PATIENCE).await.unwrap_err();
        assert!(matches!(&error, Error::Refused(text) if text.contains("busbar/h/+/+/set")), "{error}");
    }
}

/// A client with rights on a set topic must not be able to end the gateway's session, also not for ever by `retain`.
#[tokio::test]
async fn a_huge_command_is_skipped() {
    for version in VERSIONS {
        let broker = broker().await;
        for qos in [0, 1] {
            broker.publish(&format!("busbar/h/d/stored-{qos}/set"), vec![b'x'; 900_000], qos, true);
        }
        let options =
            Options { subscribe: Some("busbar/h/+/+/set".into()), ..options(broker.address(), version) };
        let mut session = Session::<u32>::connect(&options, PATIENCE).await.unwrap();
        for qos in [0, 1] {
            broker.publish("busbar/h/d/p/set", vec![b'x'; 100_000], qos, false);
        }
        broker.publish("busbar/h/d/p/set", "small", 1, false);
        let event = tokio::time::timeout(PATIENCE, session.next()).await.unwrap();
        let expected =
            Event::Received { topic: "busbar/h/d/p/set".into(), payload: "small".into(), retained: false };
        assert_eq!(event, Ok(expected));
        session.probe().await.unwrap();
    }
}

/// `next` is dropped whenever the owner has something to send: nothing may get lost by that.
#[tokio::test]
async fn next_can_be_dropped_at_any_await() {
    for version in VERSIONS {
        let broker = broker().await;
        let mut session = connect(&broker, version).await;
        let mut confirmed = Vec::new();
        for token in 0..2000_u32 {
            while !session.has_room() {
                common::take(session.next().await.unwrap(), &mut confirmed);
            }
            session.send(&message("x"), token).unwrap();
            tokio::select! {
                biased;
                event = session.next() => common::take(event.unwrap(), &mut confirmed),
                () = std::future::ready(()) => {}
            }
        }
        send_all(&mut session, &[], &mut confirmed).await.unwrap();
        assert_eq!(confirmed, (0..2000).collect::<Vec<_>>());
    }
}

/// A broker that publishes without end and reads nothing: what it must be told does not grow without end.
#[tokio::test]
async fn a_broker_that_never_listens_is_lost() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // A small window, so that little is needed to fill it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut connect = [0; 1024];
        let read = stream.read(&mut connect).await.unwrap();
        assert!(read > 0);
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        // PUBLISH, QoS 1, topic "a", packet id 1; and a PINGRESP that nobody asked for.
        let mut burst = [0x32, 5, 0, 1, b'a', 0, 1].repeat(1000);
        burst.extend([0xd0, 0]);
        while stream.write_all(&burst).await.is_ok() {}
    });
    let options = Options {
        status: None,
        max_packet: 1024,
        keep_alive: Duration::from_secs(1),
        ack_timeout: Duration::from_millis(500),
        ..options(address, Version::V3_1_1)
    };
    let mut session: Session<u32> = Session::connect(&options, PATIENCE).await.unwrap();
    let over = async {
        loop {
            if let Err(error) = session.next().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, over).await.expect("it must end");
    assert!(matches!(&error, Error::Lost(text) if text.contains("no answer to a ping")), "{error:?}");
    drop(session);
    server.await.unwrap();
}

//! RTU on a line: framing, noise, and the rules that replace a transaction number.

use busbar_modbus::memory::Echo;
use busbar_modbus::{Answer, Call, Carrier, Error, LineMemory, Table};
use tokio::io::AsyncWriteExt as _;

use crate::support::{TIMEOUT, echo, expect, sealed, send, session};

#[tokio::test(start_paused = true)]
async fn every_function_on_a_line() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 0);
    let far = &mut far[0];
    let peer = async {
        expect(far, &sealed(&[0x11, 1, 0, 0x13, 0, 0x13])).await;
        send(far, &sealed(&[0x11, 1, 3, 0xCD, 0x6B, 0x05])).await;
        echo(far).await;
        expect(far, &sealed(&[0x11, 2, 0, 0xC4, 0, 0x16])).await;
        send(far, &sealed(&[0x11, 2, 3, 0xAC, 0xDB, 0x35])).await;
        expect(far, &sealed(&[0x11, 3, 0, 0x6B, 0, 3])).await;
        send(far, &sealed(&[0x11, 3, 6, 2, 0x2B, 0, 0, 0, 0x64])).await;
        expect(far, &sealed(&[0x11, 4, 0, 8, 0, 1])).await;
        send(far, &sealed(&[0x11, 4, 2, 0, 0x0A])).await;
        for write in [&[0x11, 5, 0, 0xAC, 0xFF, 0][..], &[0x11, 6, 0, 1, 0, 3]] {
            expect(far, &sealed(write)).await;
            send(far, &sealed(write)).await;
        }
        expect(far, &sealed(&[0x11, 15, 0, 0x13, 0, 10, 2, 0xCD, 1])).await;
        send(far, &sealed(&[0x11, 15, 0, 0x13, 0, 10])).await;
        expect(far, &sealed(&[0x11, 16, 0, 1, 0, 2, 4, 0, 0x0A, 1, 2])).await;
        send(far, &sealed(&[0x11, 16, 0, 1, 0, 2])).await;
    };
    let ours = async {
        let read = |table, start, count| Call::Read { table, start, count };
        assert!(matches!(session.call(0x11, &read(Table::Coil, 0x13, 0x13)).await, Ok(Answer::Bits(_))));
        assert!(matches!(session.call(0x11, &read(Table::Discrete, 0xC4, 0x16)).await, Ok(Answer::Bits(_))));
        let words = session.call(0x11, &read(Table::Holding, 0x6B, 3)).await;
        assert_eq!(words, Ok(Answer::Words(vec![0x022B, 0, 0x64])));
        assert_eq!(session.call(0x11, &read(Table::Input, 8, 1)).await, Ok(Answer::Words(vec![10])));
        let states = [true, false, true, true, false, false, true, true, true, false];
        for call in [
            Call::WriteCoil { offset: 0xAC, value: true },
            Call::WriteRegister { offset: 1, value: 3 },
            Call::WriteCoils { start: 0x13, values: &states },
            Call::WriteRegisters { start: 1, values: &[0x0A, 0x0102] },
        ] {
            assert_eq!(session.call(0x11, &call).await, Ok(Answer::Written), "{call:?}");
        }
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn the_late_answer_is_never_taken_for_the_next() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 0);
    let far = &mut far[0];
    let peer = async {
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
        echo(far).await;
        // No answer in time.
        expect(far, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        // The session asks for an echo; the late answer comes first, as on every line.
        let mut frame = [0; 8];
        tokio::io::AsyncReadExt::read_exact(far, &mut frame).await.unwrap();
        assert_eq!(frame[..4], [1, 8, 0, 0]);
        send(far, &sealed(&[1, 3, 2, 0, 22])).await;
        send(far, &frame).await;
        expect(far, &sealed(&[1, 3, 0, 3, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 33])).await;
    };
    let ours = async {
        assert_eq!(session.read_words(1, Table::Holding, 1, 1).await, Ok(vec![11]));
        let error = session.read_words(1, Table::Holding, 2, 1).await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
        assert_eq!(session.read_words(1, Table::Holding, 3, 1).await, Ok(vec![33]));
    };
    tokio::join!(ours, peer);
}

/// A device that was stopped answers everything it received, however long ago, in order and at its own pace.
#[tokio::test(start_paused = true)]
async fn a_device_that_wakes_up_after_minutes() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 0);
    let far = &mut far[0];
    let mut asked: Vec<Vec<u8>> = Vec::new();
    let (first, ()) = tokio::join!(session.read_words(1, Table::Holding, 1, 1), async {
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 1])).await;
        echo(far).await;
    });
    assert_eq!(first, Ok(vec![1]));
    for round in 0..100_u16 {
        let error = session.read_words(1, Table::Holding, 100 + round, 1).await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
    }
    let device = async {
        loop {
            let mut frame = vec![0; 8];
            tokio::io::AsyncReadExt::read_exact(far, &mut frame).await.unwrap();
            asked.push(frame.clone());
            tokio::time::sleep(TIMEOUT / 7).await;
            match frame[1] {
                8 => send(far, &frame).await,
                _ => send(far, &sealed(&[1, 3, 2, frame[2], frame[3]])).await,
            }
        }
    };
    let ours = async {
        for offset in [7_u16, 300, 9] {
            let mut words = session.read_words(1, Table::Holding, offset, 1).await;
            while let Err(Error::NoAnswer { .. } | Error::Nonsense { .. }) = words {
                words = session.read_words(1, Table::Holding, offset, 1).await;
            }
            assert_eq!(words, Ok(vec![offset]));
        }
    };
    tokio::select! { () = ours => {}, () = device => {} }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_that_overtakes_is_waited_out() {
    // A server in software: the echo is answered at once, the late answer comes after it.
    let (mut session, mut far) = session(Carrier::Serial, 1, 2);
    let far = &mut far[0];
    let peer = async {
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
        echo(far).await;
        expect(far, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        echo(far).await;
        tokio::time::sleep(TIMEOUT / 2).await;
        send(far, &sealed(&[1, 3, 2, 0, 22])).await;
        // Repeated only now, and at once.
        expect(far, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 23])).await;
    };
    let ours = async {
        assert_eq!(session.read_words(1, Table::Holding, 1, 1).await, Ok(vec![11]));
        assert_eq!(session.read_words(1, Table::Holding, 2, 1).await, Ok(vec![23]));
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn a_unit_without_function_8_is_waited_out_and_doubted() {
    let (session, mut far) = session(Carrier::Serial, 1, 0);
    let memory = LineMemory::default();
    let mut session = session.with_memory(memory.clone());
    let far = &mut far[0];
    let peer = async {
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
        let mut frame = [0; 8];
        tokio::io::AsyncReadExt::read_exact(far, &mut frame).await.unwrap();
        assert_eq!(frame[1], 8);
        expect(far, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        // The answer to register 2 comes when register 3 is asked, then the one to register 3.
        expect(far, &sealed(&[1, 3, 0, 3, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 22])).await;
        send(far, &sealed(&[1, 3, 2, 0, 33])).await;
    };
    let ours = async {
        assert_eq!(session.read_words(1, Table::Holding, 1, 1).await, Ok(vec![11]));
        assert_eq!(memory.echo(1), Echo::Silent);
        assert!(session.read_words(1, Table::Holding, 2, 1).await.is_err());
        tokio::time::advance(TIMEOUT).await;
        let error = session.read_words(1, Table::Holding, 3, 1).await.unwrap_err();
        assert!(matches!(error, Error::Nonsense { .. }), "{error}");
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_unit_does_not_disturb() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 0);
    let far = &mut far[0];
    let peer = async {
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        expect(far, &sealed(&[2, 3, 0, 1, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
        send(far, &sealed(&[2, 3, 2, 0, 22])).await;
        echo(far).await;
    };
    let ours = async {
        assert!(session.read_words(1, Table::Holding, 1, 1).await.is_err());
        assert_eq!(session.read_words(2, Table::Holding, 1, 1).await, Ok(vec![22]));
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn noise_on_the_line() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 1);
    let far = &mut far[0];
    let peer = async {
        // A glitch before the answer.
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(far, &[0x00, 0xFF]).await;
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
        echo(far).await;
        // A damaged answer is repeated, after an echo.
        expect(far, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        let mut damaged = sealed(&[1, 3, 2, 0, 22]);
        damaged[4] ^= 0x10;
        send(far, &damaged).await;
        echo(far).await;
        expect(far, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 22])).await;
        // A glitch after it, and byte by byte.
        send(far, &[0x00]).await;
        expect(far, &sealed(&[1, 3, 0, 3, 0, 1])).await;
        for byte in sealed(&[1, 3, 2, 0, 33]) {
            far.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ours = async {
        for (offset, value) in [(1, 11), (2, 22), (3, 33)] {
            assert_eq!(session.read_words(1, Table::Holding, offset, 1).await, Ok(vec![value]));
        }
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_say_what_is_wrong() {
    for (response, text) in [
        (sealed(&[1, 3, 4, 0, 1, 0, 2]), "an answer to another request: 01 03 04"),
        (sealed(&[2, 3, 2, 0, 1]), "second master"),
        (sealed(&[1, 4, 2, 0, 1]), "another unit or function"),
        (sealed(&[1, 3, 0, 0, 0, 1]), "local echo"),
    ] {
        let (mut session, mut far) = session(Carrier::Serial, 1, 0);
        let far = &mut far[0];
        let peer = async {
            expect(far, &sealed(&[1, 3, 0, 0, 0, 1])).await;
            send(far, &response).await;
        };
        let (error, ()) = tokio::join!(session.read_words(1, Table::Holding, 0, 1), peer);
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Nonsense { .. }) && error.to_string().contains(text), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_keep_their_distance() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 0);
    let far = &mut far[0];
    let mut answered = None;
    let peer = async {
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
        echo(far).await;
        answered = Some(tokio::time::Instant::now());
        expect(far, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        let gap = answered.unwrap().elapsed();
        assert!(gap >= std::time::Duration::from_millis(4), "{gap:?}");
        send(far, &sealed(&[1, 3, 2, 0, 11])).await;
    };
    let ours = async {
        for _ in 0..2 {
            assert_eq!(session.read_words(1, Table::Holding, 1, 1).await, Ok(vec![11]));
        }
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn rtu_over_tcp_opens_a_new_connection_and_still_asks_for_an_echo() {
    let (mut session, mut far) = session(Carrier::RtuOverTcp, 2, 0);
    let mut second = far.pop().unwrap();
    let mut first = far.pop().unwrap();
    let peer = async {
        expect(&mut first, &sealed(&[1, 3, 0, 1, 0, 1])).await;
        send(&mut first, &sealed(&[1, 3, 2, 0, 11])).await;
        echo(&mut first).await;
        expect(&mut first, &sealed(&[1, 3, 0, 2, 0, 1])).await;
        // The serial server delivers the late answer into the new connection.
        let mut frame = [0; 8];
        tokio::io::AsyncReadExt::read_exact(&mut second, &mut frame).await.unwrap();
        assert_eq!(frame[..4], [1, 8, 0, 0]);
        send(&mut second, &sealed(&[1, 3, 2, 0, 22])).await;
        send(&mut second, &frame).await;
        expect(&mut second, &sealed(&[1, 3, 0, 3, 0, 1])).await;
        send(&mut second, &sealed(&[1, 3, 2, 0, 33])).await;
    };
    let ours = async {
        assert_eq!(session.read_words(1, Table::Holding, 1, 1).await, Ok(vec![11]));
        assert!(session.read_words(1, Table::Holding, 2, 1).await.is_err());
        assert_eq!(session.read_words(1, Table::Holding, 3, 1).await, Ok(vec![33]));
        assert_eq!(session.counters().connections, 2);
    };
    tokio::join!(ours, peer);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_write_is_put_to_rest_too() {
    let (mut session, mut far) = session(Carrier::Serial, 1, 0);
    let far = &mut far[0];
    let peer = async {
        expect(far, &sealed(&[1, 6, 0, 1, 0, 5])).await;
        let mut frame = [0; 8];
        tokio::io::AsyncReadExt::read_exact(far, &mut frame).await.unwrap();
        assert_eq!(frame[..4], [1, 8, 0, 0]);
        send(far, &sealed(&[1, 6, 0, 1, 0, 5])).await;
        send(far, &frame).await;
        expect(far, &sealed(&[1, 6, 0, 1, 0, 6])).await;
        send(far, &sealed(&[1, 6, 0, 1, 0, 6])).await;
    };
    let ours = async {
        let call = Call::WriteRegister { offset: 1, value: 5 };
        assert!(tokio::time::timeout(TIMEOUT / 2, session.call(1, &call)).await.is_err());
        assert_eq!(session.call(1, &Call::WriteRegister { offset: 1, value: 6 }).await, Ok(Answer::Written));
    };
    tokio::join!(ours, peer);
}

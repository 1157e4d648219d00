//! Modbus TCP: every function, every way an answer can be wrong.

use busbar_modbus::{Answer, Call, Carrier, Consequence, Error, Exception, Table};
use tokio::io::DuplexStream;

use crate::support::{TIMEOUT, expect, send, session};

async fn dialogue(call: Call<'_>, request: &[u8], response: &[u8]) -> Result<Answer, Error> {
    let (mut session, mut far) = session(Carrier::Tcp, 1, 0);
    let peer = async {
        expect(&mut far[0], request).await;
        send(&mut far[0], response).await;
    };
    tokio::join!(session.call(0x11, &call), peer).0
}

/// The examples of MODBUS Application Protocol 6, each in a TCP frame of unit 17.
#[tokio::test(start_paused = true)]
async fn every_function_of_the_standard() {
    let read = |table, start, count| Call::Read { table, start, count };
    let bits = |bytes: &[u8]| {
        Ok(Answer::Bits(bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect()))
    };
    assert_eq!(
        dialogue(
            read(Table::Coil, 0x13, 0x13),
            &[0, 0, 0, 0, 0, 6, 0x11, 1, 0, 0x13, 0, 0x13],
            &[0, 0, 0, 0, 0, 6, 0x11, 1, 3, 0xCD, 0x6B, 0x05],
        )
        .await,
        bits(&[0xCD, 0x6B, 0x05])
    );
    assert_eq!(
        dialogue(
            read(Table::Discrete, 0xC4, 0x16),
            &[0, 0, 0, 0, 0, 6, 0x11, 2, 0, 0xC4, 0, 0x16],
            &[0, 0, 0, 0, 0, 6, 0x11, 2, 3, 0xAC, 0xDB, 0x35],
        )
        .await,
        bits(&[0xAC, 0xDB, 0x35])
    );
    assert_eq!(
        dialogue(
            read(Table::Holding, 0x6B, 3),
            &[0, 0, 0, 0, 0, 6, 0x11, 3, 0, 0x6B, 0, 3],
            &[0, 0, 0, 0, 0, 9, 0x11, 3, 6, 0x02, 0x2B, 0, 0, 0, 0x64],
        )
        .await,
        Ok(Answer::Words(vec![0x022B, 0, 0x64]))
    );
    assert_eq!(
        dialogue(
            read(Table::Input, 8, 1),
            &[0, 0, 0, 0, 0, 6, 0x11, 4, 0, 8, 0, 1],
            &[0, 0, 0, 0, 0, 5, 0x11, 4, 2, 0, 0x0A],
        )
        .await,
        Ok(Answer::Words(vec![10]))
    );
    let coil = [0, 0, 0, 0, 0, 6, 0x11, 5, 0, 0xAC, 0xFF, 0];
    assert_eq!(
        dialogue(Call::WriteCoil { offset: 0xAC, value: true }, &coil, &coil).await,
        Ok(Answer::Written)
    );
    let register = [0, 0, 0, 0, 0, 6, 0x11, 6, 0, 1, 0, 3];
    assert_eq!(
        dialogue(Call::WriteRegister { offset: 1, value: 3 }, &register, &register).await,
        Ok(Answer::Written)
    );
    let states = [true, false, true, true, false, false, true, true, true, false];
    assert_eq!(
        dialogue(
            Call::WriteCoils { start: 0x13, values: &states },
            &[0, 0, 0, 0, 0, 9, 0x11, 15, 0, 0x13, 0, 10, 2, 0xCD, 0x01],
            &[0, 0, 0, 0, 0, 6, 0x11, 15, 0, 0x13, 0, 10],
        )
        .await,
        Ok(Answer::Written)
    );
    assert_eq!(
        dialogue(
            Call::WriteRegisters { start: 1, values: &[0x0A, 0x0102] },
            &[0, 0, 0, 0, 0, 11, 0x11, 16, 0, 1, 0, 2, 4, 0, 0x0A, 1, 2],
            &[0, 0, 0, 0, 0, 6, 0x11, 16, 0, 1, 0, 2],
        )
        .await,
        Ok(Answer::Written)
    );
}

async fn wrong(response: &[u8]) -> Error {
    let call = Call::Read { table: Table::Holding, start: 0, count: 2 };
    dialogue(call, &[0, 0, 0, 0, 0, 6, 0x11, 3, 0, 0, 0, 2], response).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn an_exception_has_a_name() {
    let error = wrong(&[0, 0, 0, 0, 0, 3, 0x11, 0x83, 2]).await;
    assert_eq!(error, Error::Refused { unit: 0x11, function: 3, exception: Exception(2) });
    assert_eq!(error.to_string(), "unit 17 refused function 3: exception 2 (illegal data address)");
    let silent = wrong(&[0, 0, 0, 0, 0, 3, 0x11, 0x83, 11]).await;
    assert_eq!(silent.consequence(), Consequence::DeviceSilent);
}

#[tokio::test(start_paused = true)]
async fn answers_that_belong_to_something_else_are_nonsense() {
    for (what, response) in [
        ("transaction", &[0, 1, 0, 0, 0, 7, 0x11, 3, 4, 0, 1, 0, 2][..]),
        ("unit", &[0, 0, 0, 0, 0, 7, 0x12, 3, 4, 0, 1, 0, 2]),
        ("function", &[0, 0, 0, 0, 0, 7, 0x11, 4, 4, 0, 1, 0, 2]),
        ("too short", &[0, 0, 0, 0, 0, 5, 0x11, 3, 2, 0, 1]),
        ("too long", &[0, 0, 0, 0, 0, 9, 0x11, 3, 6, 0, 1, 0, 2, 0, 3]),
        ("odd", &[0, 0, 0, 0, 0, 6, 0x11, 3, 3, 0, 1, 0]),
        ("count beyond the frame", &[0, 0, 0, 0, 0, 5, 0x11, 3, 4, 0, 1]),
        ("protocol", &[0, 0, 0, 1, 0, 7, 0x11, 3, 4, 0, 1, 0, 2]),
        ("length 0", &[0, 0, 0, 0, 0, 0, 0x11]),
        ("exception of another function", &[0, 0, 0, 0, 0, 3, 0x11, 0x84, 2]),
    ] {
        let error = wrong(response).await;
        assert!(!matches!(error, Error::Refused { .. } | Error::NoAnswer { .. }), "{what}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_bytes_never_panic() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..500 {
        let mut bytes = vec![0, 0, 0, 0, 0];
        for _ in 0..(state % 40) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state as u8);
        }
        state = state.wrapping_mul(0x9E37_79B9).rotate_left(9) | 1;
        let call = Call::Read { table: Table::Holding, start: 0, count: 2 };
        let (mut session, mut far) = session(Carrier::Tcp, 1, 0);
        let peer = async { send(&mut far[0], &bytes).await };
        let (result, ()) = tokio::join!(session.call(0x11, &call), peer);
        if let Ok(answer) = result {
            assert!(matches!(answer, Answer::Words(words) if words.len() == 2), "{bytes:02X?}");
        }
    }
}

fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let [high, low] = transaction.to_be_bytes();
    let mut frame = vec![high, low, 0, 0, 0, pdu.len() as u8 + 1, unit];
    frame.extend_from_slice(pdu);
    frame
}

async fn read_one(far: &mut DuplexStream, transaction: u16, start: u8, value: u8) {
    expect(far, &frame(transaction, 1, &[3, 0, start, 0, 1])).await;
    send(far, &frame(transaction, 1, &[3, 2, 0, value])).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_time_out_the_late_answer_cannot_reach_the_next_request() {
    let (mut session, mut far) = session(Carrier::Tcp, 2, 0);
    let mut second = far.pop().unwrap();
    let mut first = far.pop().unwrap();
    let error = session.read_words(1, Table::Holding, 7, 1).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { after, .. } if after == TIMEOUT), "{error}");
    expect(&mut first, &frame(0, 1, &[3, 0, 7, 0, 1])).await;
    // The session has hung up: nobody can answer on the old connection any more.
    let hung_up = tokio::io::AsyncWriteExt::write_all(&mut first, &frame(0, 1, &[3, 2, 0, 77])).await;
    assert!(hung_up.is_err());
    let (words, ()) =
        tokio::join!(session.read_words(1, Table::Holding, 8, 1), read_one(&mut second, 0, 8, 88));
    assert_eq!(words, Ok(vec![88]));
    assert_eq!(session.counters().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_counts_as_a_time_out() {
    let (mut session, mut far) = session(Carrier::Tcp, 2, 0);
    let mut second = far.pop().unwrap();
    let cancelled = tokio::time::timeout(TIMEOUT / 2, session.read_words(1, Table::Holding, 7, 1)).await;
    assert!(cancelled.is_err());
    let (words, ()) =
        tokio::join!(session.read_words(1, Table::Holding, 8, 1), read_one(&mut second, 0, 8, 88));
    assert_eq!(words, Ok(vec![88]));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closed_by_the_device_is_opened_again_for_a_read() {
    let (mut session, mut far) = session(Carrier::Tcp, 2, 0);
    let mut second = far.pop().unwrap();
    let mut first = far.pop().unwrap();
    let (words, ()) =
        tokio::join!(session.read_words(1, Table::Holding, 1, 1), read_one(&mut first, 0, 1, 11));
    assert_eq!(words, Ok(vec![11]));
    drop(first);
    let (words, ()) =
        tokio::join!(session.read_words(1, Table::Holding, 2, 1), read_one(&mut second, 0, 2, 22));
    assert_eq!(words, Ok(vec![22]));
    drop(second);
    let error = session.read_words(1, Table::Holding, 3, 1).await.unwrap_err();
    assert_eq!(error.consequence(), Consequence::SessionOver);
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_instead_of_an_answer_is_called_that() {
    let (mut session, mut far) = session(Carrier::Tcp, 1, 0);
    let mut peer = far.pop().unwrap();
    let (error, ()) = tokio::join!(session.read_words(1, Table::Holding, 1, 1), async move {
        expect(&mut peer, &frame(0, 1, &[3, 0, 1, 0, 1])).await;
        drop(peer);
    });
    assert_eq!(error.unwrap_err().to_string(), "scripted: the peer closed the connection");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_never_repeated() {
    let (mut session, mut far) = session(Carrier::Tcp, 2, 5);
    let second = far.pop().unwrap();
    let error = session.call(1, &Call::WriteCoil { offset: 1, value: true }).await.unwrap_err();
    assert!(error.may_have_been_executed(), "{error}");
    assert_eq!(session.counters().requests, 1);
    drop((far, second));
}

#[tokio::test(start_paused = true)]
async fn several_units_share_one_connection() {
    let (mut session, mut far) = session(Carrier::Tcp, 1, 0);
    for unit in [1, 2, 255] {
        let transaction = session.counters().requests as u16;
        let peer = async {
            expect(&mut far[0], &frame(transaction, unit, &[4, 0, 0, 0, 1])).await;
            send(&mut far[0], &frame(transaction, unit, &[4, 2, 0, unit])).await;
        };
        let (words, ()) = tokio::join!(session.read_words(unit, Table::Input, 0, 1), peer);
        assert_eq!(words, Ok(vec![u16::from(unit)]));
    }
    assert_eq!(session.counters().connections, 1);
}

#[tokio::test]
async fn hosts_are_tried_in_order_and_the_last_good_one_is_remembered() {
    use busbar_modbus::simulator::{Bank, Simulator};
    use busbar_modbus::{LastGood, Prefer, Session, TcpHosts, Timing};

    let simulator = Simulator::builder().unit(1, Bank::new().holding(0, &[7])).build();
    let port = simulator.bind_tcp("127.0.0.1:0").await.unwrap().port();
    let patience = std::time::Duration::from_secs(30);
    let timing = Timing { response_timeout: patience, retries: 0, frame_gap: std::time::Duration::ZERO };
    let last_good = LastGood::default();
    // Nobody listens on 127.0.0.2: it refuses at once.
    let session = |hosts: [&str; 2], prefer| {
        let hosts = TcpHosts::new(hosts.map(str::to_owned).to_vec(), port, prefer, patience);
        Session::new(Box::new(hosts.with_last_good(last_good.clone())), Carrier::Tcp, timing)
    };
    let mut first = session(["127.0.0.2", "127.0.0.1"], Prefer::LastGood);
    assert!(first.peer().starts_with("127.0.0.2:"));
    assert_eq!(first.read_words(1, Table::Holding, 0, 1).await, Ok(vec![7]));
    let again = session(["127.0.0.2", "127.0.0.1"], Prefer::LastGood);
    assert!(again.peer().starts_with("127.0.0.1:"));
    let mut none = session(["127.0.0.2", "127.0.0.3"], Prefer::First);
    let error = none.read_words(1, Table::Holding, 0, 1).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.2: ") && error.contains("127.0.0.3: "), "{error}");
}

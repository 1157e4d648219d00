//! One session per endpoint, shared by all its devices; every device has a unit id and times of its own.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use busbar_driver_api::serde_json::{self, json};
use busbar_driver_api::{
    Answer, BlockWrite, BoundPoint, Cause, Check, Command, Device, Driver, Endpoint, Error, Group,
    NoSettings, Pages, Plan, Problem, Quality, Readings, Result, contract::FailureKind,
};
use busbar_modbus::poll::Receive;
use busbar_modbus::{
    self as modbus, Call, Connect, Consequence, LastGood, LineMemory, Poller, SerialPath, Session, TcpHosts,
    Timing,
};

use crate::config::{Connection, Point, Prefer, Transport};
use crate::{browse, check, point, write};

/// Blocks whose answers arrive within this time share one time stamp: within it a stamp says nothing more, and equal
/// stamps keep grouped messages small.
const SAME_STAMP: Duration = Duration::from_millis(20);
/// Requests beyond the planned ones that a deadline allows for: a new connection and an echo on a line.
const SPARE_EXCHANGES: usize = 2;
/// Points of a refused block that are read singly within one read; more take their turn with the next deadline.
const SPARE_SINGLES: usize = 32;
/// Endpoints whose memory outlives their session; the oldest goes first.
const MAX_ENDPOINTS: usize = 128;
/// A block that needs several requests is read until two readings agree, at most so often.
const MAX_BLOCK_READS: usize = 4;

/// What is known of an endpoint beyond one session, which may be dropped at any deadline: the requests its line may
/// still answer, and the host that worked last.
#[derive(Clone, Default)]
struct Memory {
    line: LineMemory,
    last_good: LastGood,
}

static ENDPOINTS: LazyLock<Mutex<Vec<(String, Memory)>>> = LazyLock::new(|| Mutex::new(Vec::new()));

fn memory(key: &str) -> Memory {
    let mut endpoints = ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, memory)) = endpoints.iter().find(|(known, _)| known == key) {
        return memory.clone();
    }
    if endpoints.len() >= MAX_ENDPOINTS {
        endpoints.remove(0);
    }
    let memory = Memory::default();
    endpoints.push((key.to_owned(), memory.clone()));
    memory
}

/// The session of one endpoint.
pub(crate) struct Modbus {
    session: Session,
}

/// How one group is read.
pub(crate) struct GroupPlan {
    poller: Poller,
    /// Slot of each point of the poller.
    slots: Vec<usize>,
    /// Points that configuration should not have let through.
    broken: Vec<(usize, String)>,
}

impl GroupPlan {
    fn new(connection: &Connection, points: &[BoundPoint<Modbus>]) -> Self {
        let mut fields = Vec::with_capacity(points.len());
        let mut slots = Vec::with_capacity(points.len());
        let mut broken = Vec::new();
        for (slot, bound) in points.iter().enumerate() {
            match point::checked_field(&bound.spec, connection.address_mode) {
                Ok(field) => {
                    fields.push(field);
                    slots.push(slot);
                }
                Err(text) => broken.push((slot, text)),
            }
        }
        Self { poller: Poller::new(connection.unit_id, fields, connection.limits()), slots, broken }
    }
}

impl Plan for GroupPlan {
    fn exchanges(&self) -> u32 {
        let singles = self.slots.len().min(SPARE_SINGLES);
        u32::try_from(self.poller.requests() + singles + SPARE_EXCHANGES).unwrap_or(u32::MAX)
    }
}

/// Fills the slots of one read.
struct Fill<'a> {
    out: &'a mut Readings,
    slots: &'a [usize],
    stamped: Option<Instant>,
}

impl Receive for Fill<'_> {
    fn answered(&mut self) {
        if self.stamped.is_none_or(|stamped| stamped.elapsed() > SAME_STAMP) {
            self.out.stamp();
            self.stamped = Some(Instant::now());
        }
    }

    fn point(&mut self, index: usize, value: std::result::Result<modbus::Value, &modbus::Error>) {
        let Some(slot) = self.slots.get(index).copied() else { return };
        match value {
            Ok(value) => point::put(self.out, slot, &value),
            Err(error @ modbus::Error::Refused { exception, .. }) if exception.is_permanent() => {
                self.out.refuse(slot, error.to_string());
            }
            Err(_) => self.out.invalid(slot, Quality::FAILURE),
        }
    }
}

/// What an error of the protocol means to the gateway.
pub(crate) fn error(error: &modbus::Error) -> Error {
    let text = error.to_string();
    match (error.consequence(), error) {
        (Consequence::PointsOnly, modbus::Error::Refused { exception, .. }) => {
            Error::refused(text).code(exception.0)
        }
        (Consequence::PointsOnly, _) => Error::refused(text),
        (Consequence::DeviceSilent, _) => Error::no_answer(text),
        (Consequence::SessionOver, _) => Error::session(text),
        (Consequence::NotSent, _) => Error::configuration(text),
    }
}

impl Modbus {
    /// The session, with this device's times and log switch in force.
    pub(crate) fn session(&mut self, device: &Device<Self>) -> &mut Session {
        self.session.set_timing(device.response_timeout, device.retries);
        self.session.frame_log().set(device.logs_frames());
        &mut self.session
    }

    /// Any answer of the device, also a refusal, proves that it is there.
    async fn ask(&mut self, device: &Device<Self>, retries: u32, limit: Duration) -> Result<()> {
        let mode = device.connection.address_mode;
        let field = device.points().iter().find_map(|point| point::checked_field(&point.spec, mode).ok());
        let Some(field) = field else { return Ok(()) };
        let session = self.session(device);
        session.set_timing(limit, retries);
        let call = Call::Read { table: field.address.table, start: field.address.offset, count: field.count };
        match session.call(device.connection.unit_id, &call).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.consequence() == Consequence::PointsOnly => Ok(()),
            Err(failure) => Err(error(&failure)),
        }
    }
}

fn connector(connection: &Connection, response_timeout: Duration, last_good: LastGood) -> Box<dyn Connect> {
    match connection.transport {
        Transport::Rtu => Box::new(SerialPath::new(connection.serial())),
        Transport::Tcp | Transport::RtuOverTcp => {
            let prefer = match connection.prefer {
                Prefer::First => modbus::Prefer::First,
                Prefer::LastGood => modbus::Prefer::LastGood,
            };
            let hosts = connection.hosts();
            // The deadline of a connect is three exchanges: all hosts get half of it, the first exchange the rest.
            let share = response_timeout.mul_f64(1.5 / hosts.len().max(1) as f64).min(response_timeout);
            Box::new(TcpHosts::new(hosts, connection.port, prefer, share).with_last_good(last_good))
        }
    }
}

impl Driver for Modbus {
    const NAME: &'static str = "modbus";
    const DESCRIPTION: &'static str = "Modbus TCP, RTU and RTU over TCP client";

    type Connection = Connection;
    type Settings = NoSettings;
    type Point = Point;
    type Plan = GroupPlan;

    fn endpoint(connection: &Connection) -> Endpoint {
        check::endpoint(connection)
    }

    fn check(input: &Check<'_, Self>) -> Vec<Problem> {
        check::check(input)
    }

    fn plan(connection: &Connection, points: &[BoundPoint<Self>]) -> GroupPlan {
        GroupPlan::new(connection, points)
    }

    async fn open(device: &Device<Self>) -> Result<Self> {
        let connection = &device.connection;
        let timing = Timing {
            response_timeout: device.response_timeout,
            retries: device.retries,
            frame_gap: connection.frame_gap(),
        };
        let memory = memory(&check::endpoint(connection).key);
        let connector = connector(connection, device.response_timeout, memory.last_good);
        let session =
            Session::new(connector, connection.transport.carrier(), timing).with_memory(memory.line);
        let mut driver = Self { session };
        driver.session(device).open().await.map_err(|failure| error(&failure))?;
        Ok(driver)
    }

    async fn connect(&mut self, device: &Device<Self>) -> Result<String> {
        // Once: a unit that is not there costs the line one time-out, its next attempt is the host's affair.
        self.ask(device, 0, device.response_timeout).await?;
        // Before the first value: a command for a point that was never read must have the point's kind, too.
        device.ctx.metadata(kinds(device)).await?;
        Ok(String::new())
    }

    async fn read(&mut self, group: &mut Group<'_, Self>, out: &mut Readings) -> Result<()> {
        let GroupPlan { poller, slots, broken } = &mut *group.plan;
        if group.cause == Cause::Resync {
            poller.forget_refusals();
        }
        let mut fill = Fill { out, slots, stamped: None };
        let result = poller.read(self.session(group.device), &mut fill).await;
        for (slot, text) in broken.iter() {
            out.refuse(*slot, text.as_str());
        }
        result.map_err(|failure| error(&failure))
    }

    async fn probe(&mut self, device: &Device<Self>) -> Result<()> {
        // A little less than the deadline, so that the answer "nobody there" comes from here and ends only the device.
        self.ask(device, device.retries, device.response_timeout.mul_f64(0.9)).await
    }

    async fn command(&mut self, device: &Device<Self>, command: &Command<'_, Self>) -> Result<Answer> {
        write::command(self.session(device), device, command).await
    }

    async fn block_read(
        &mut self,
        device: &Device<Self>,
        points: &[BoundPoint<Self>],
        out: &mut Readings,
    ) -> Result<()> {
        let mut plan = GroupPlan::new(&device.connection, points);
        if let Some((_, text)) = plan.broken.first() {
            return Err(Error::configuration(text.as_str()));
        }
        let mut before: Option<Vec<Option<modbus::Value>>> = None;
        for _ in 0..MAX_BLOCK_READS {
            let values = read_all(&mut plan, self.session(device)).await?;
            // One request is one unit; several are when two readings in a row agree.
            let one_request = plan.poller.requests() <= 1 && plan.poller.lessons().is_empty();
            let agrees = one_request || before.as_ref().is_some_and(|before| *before == values);
            if agrees {
                out.stamp();
                put_all(out, &values);
                return Ok(());
            }
            before = Some(values);
        }
        Err(Error::refused(format!(
            "the block changed during {MAX_BLOCK_READS} readings; no consistent value"
        )))
    }

    async fn block_write(&mut self, device: &Device<Self>, write: &BlockWrite<'_, Self>) -> Result<Answer> {
        write::block(self.session(device), device, write).await
    }

    async fn browse(&mut self, device: &Device<Self>, arguments: &[String], pages: &mut Pages) -> Result<()> {
        browse::browse(self.session(device), device.connection.unit_id, arguments, pages).await
    }

    async fn close(mut self) {
        self.session.close();
    }

    fn self_test() -> std::result::Result<(), String> {
        let frame = modbus::rtu::crc(&[0x02, 0x07]);
        if frame == 0x1241 { Ok(()) } else { Err(format!("checksum: expected 1241, found {frame:04X}")) }
    }
}

/// METADATA: the kind in which each point's value travels, as configured; known without asking the device.
fn kinds(device: &Device<Modbus>) -> Vec<(u32, serde_json::Value)> {
    let mode = device.connection.address_mode;
    let kind = |bound: &BoundPoint<Modbus>| {
        let field = point::checked_field(&bound.spec, mode).ok()?;
        Some((bound.number, json!({ "kind": point::kind(field.kind).as_str() })))
    };
    device.points().iter().filter_map(kind).collect()
}

async fn read_all(plan: &mut GroupPlan, session: &mut Session) -> Result<Vec<Option<modbus::Value>>> {
    let mut values: Vec<Option<modbus::Value>> = vec![None; plan.slots.len()];
    let mut failure = None;
    let mut receive = |index: usize, value: std::result::Result<modbus::Value, &modbus::Error>| match value {
        Ok(value) => {
            if let Some(slot) = values.get_mut(index) {
                *slot = Some(value);
            }
        }
        Err(refused) => failure = Some(error(refused)),
    };
    plan.poller.read(session, &mut receive).await.map_err(|failure| error(&failure))?;
    failure.map_or(Ok(values), Err)
}

fn put_all(out: &mut Readings, values: &[Option<modbus::Value>]) {
    for (slot, value) in values.iter().enumerate() {
        if let Some(value) = value {
            point::put(out, slot, value);
        }
    }
}

/// Whether a failed write may have been executed all the same.
pub(crate) fn is_unknown(session: &Session, failure: &modbus::Error) -> bool {
    session.request_left() && failure.may_have_been_executed()
}

/// True where the failure costs the device or the session, which the gateway must learn.
pub(crate) fn costs_the_device(failure: &Error) -> bool {
    matches!(failure.kind(), FailureKind::NoAnswer | FailureKind::Session)
}

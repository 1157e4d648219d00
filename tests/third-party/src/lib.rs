//! A tank with a level, a valve and a temperature that it sometimes refuses: a whole driver.
use busbar_driver_api::{Answer, BoundPoint, Command, Device, Driver, Endpoint, Error, Group};
use busbar_driver_api::{NoSettings, Readings, Result, Stage, Value, export_driver, tracing};

#[derive(serde::Deserialize, schemars::JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
struct Connection {
    /// name or address of the tank
    host: String,
    /// litres when full
    #[schemars(range(min = 1.0))]
    capacity: f64,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase", tag = "address")]
enum Point {
    Level,
    Valve,
    Temperature,
}

struct Tank(f64, bool);

impl Driver for Tank {
    const NAME: &'static str = "tank";
    type Connection = Connection;
    type Settings = NoSettings;
    type Point = Point;
    type Plan = ();

    fn endpoint(connection: &Connection) -> Endpoint {
        Endpoint::new(format!("tank:{}", connection.host)).exclusive()
    }
    fn plan(_: &Connection, _: &[BoundPoint<Self>]) {}
    async fn open(device: &Device<Self>) -> Result<Self> {
        tracing::info!(host = %device.connection.host, "connected");
        Ok(Self(device.connection.capacity / 2.0, false))
    }
    async fn read(&mut self, group: &mut Group<'_, Self>, out: &mut Readings) -> Result<()> {
        for (slot, point) in group.points().iter().enumerate() {
            match point.spec {
                Point::Level => out.f64(slot, self.0),
                Point::Valve => out.bool(slot, self.1),
                Point::Temperature => out.refuse(slot, "no sensor fitted"),
            }
        }
        Ok(())
    }
    async fn command(&mut self, _: &Device<Self>, command: &Command<'_, Self>) -> Result<Answer> {
        let (Point::Valve, Value::Bool(open)) = (&command.point.spec, command.value) else {
            return Err(Error::refused("expected true or false, for the valve only"));
        };
        self.1 = *open;
        Ok(Answer::stage(Stage::Finished))
    }
}
export_driver!(Tank);

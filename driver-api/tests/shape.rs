//! The traits can be implemented with plain `async fn`, and the smallest driver is small.

use busbar_driver_api::{
    BoundPoint, Delivery, Device, Driver, Endpoint, Group, Link, NoSettings, Readings, Result, Sink, Update,
};

#[derive(serde::Deserialize, schemars::JsonSchema, Clone)]
struct Connection {
    host: String,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Point {
    address: u32,
}

struct Small(u64);

impl Driver for Small {
    const NAME: &'static str = "small";
    type Connection = Connection;
    type Settings = NoSettings;
    type Point = Point;
    type Plan = ();

    fn endpoint(connection: &Connection) -> Endpoint {
        Endpoint { key: connection.host.clone(), exclusive: false, parallel: 1, lock_path: None }
    }

    fn plan(_: &Connection, _: &[BoundPoint<Self>]) {}

    async fn open(_: &Device<Self>) -> Result<Self> {
        Ok(Self(0))
    }

    async fn read(&mut self, group: &mut Group<'_, Self>, out: &mut Readings) -> Result<()> {
        self.0 += 1;
        for (slot, point) in group.points().iter().enumerate() {
            out.u64(slot, self.0 + u64::from(point.spec.address));
        }
        busbar_driver_api::time::sleep(std::time::Duration::ZERO).await;
        Ok(())
    }

    async fn next(&mut self) -> Result<Update> {
        std::future::pending().await
    }
}

struct Quiet;

impl Sink for Quiet {
    const NAME: &'static str = "quiet";
    type Settings = NoSettings;
    type Map = NoSettings;

    async fn open(_: &Link<Self>) -> Result<Self> {
        Ok(Self)
    }

    async fn deliver(&mut self, link: &Link<Self>, delivery: &Delivery) -> Result<()> {
        link.ctx.delivered(delivery.lane, delivery.first, u32::try_from(delivery.len()).unwrap()).await
    }
}

#[test]
fn names_are_the_words_of_the_configuration() {
    assert_eq!((Small::NAME, Quiet::NAME), ("small", "quiet"));
}

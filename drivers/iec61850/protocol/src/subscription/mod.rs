//! Reports: which control blocks serve which points, taking one, following what it sends, giving it back.
//!
//! * [`choose`]: which data set for which points, and which control blocks to try for it (pure);
//! * [`Block`]: the attributes of one control block, as the device has them now;
//! * [`Subscribe`]: reserve, set, resume, enable, check, interrogate, as a state machine;
//! * [`Follower`]: order, segments, losses of the reports of one block;
//! * [`Feed`]: from the members of a report to the points.
//!
//! A point that no data set brings with its quality, or whose blocks are all taken, is polled.

mod block;
mod choose;
mod feed;
mod follow;
mod subscribe;

pub use block::{Availability, Block};
pub use choose::{Choice, choose};
pub use feed::{Arrival, Feed};
pub use follow::{Follower, Gap, Taken};
pub use subscribe::{Outcome, Resume, Subscribe, Subscription, Wishes};

//! Time for plugins: all waiting and all time stamps go through here, so that a test can shift the wall clock and
//! speed time up from outside (`control(CLOCK)`); `tokio::time::pause` does not reach into a `.so`.
//!
//! Virtual time runs `speed` times as fast as real time, from the moment it was set; sleepers that are already waiting are
//! woken and go on with the new speed. The wall clock is virtual time plus an offset.

use std::{
    future::Future,
    sync::{LazyLock, RwLock},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

/// Speeds accepted by `control(CLOCK)`.
pub(crate) const SPEED: std::ops::RangeInclusive<f64> = 0.001..=100_000.0;

struct Clock {
    real: Instant,
    virtual_ns: u64,
    wall_ns: i64,
    offset_ns: i64,
    speed: f64,
}

static CLOCK: LazyLock<RwLock<Clock>> = LazyLock::new(|| RwLock::new(Clock::start()));
static CHANGED: Notify = Notify::const_new();

impl Clock {
    fn start() -> Self {
        Self { real: Instant::now(), virtual_ns: 0, wall_ns: 0, offset_ns: 0, speed: 1.0 }
    }

    fn shifted(&self) -> bool {
        self.speed != 1.0 || self.wall_ns != 0
    }

    fn elapsed_ns(&self) -> u64 {
        let real = self.real.elapsed();
        if self.speed == 1.0 {
            u64::try_from(real.as_nanos()).unwrap_or(u64::MAX)
        } else {
            // At most centuries; the cast saturates.
            (real.as_secs_f64() * self.speed * 1e9) as u64
        }
    }

    fn virtual_now(&self) -> u64 {
        self.virtual_ns.saturating_add(self.elapsed_ns())
    }

    fn wall_now(&self) -> i64 {
        let base = if self.shifted() {
            self.wall_ns.saturating_add(i64::try_from(self.elapsed_ns()).unwrap_or(i64::MAX))
        } else {
            system_ns()
        };
        base.saturating_add(self.offset_ns)
    }
}

fn read<T>(f: impl FnOnce(&Clock) -> T) -> T {
    f(&CLOCK.read().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn system_ns() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// The gateway's wall clock, nanoseconds since 1970-01-01 UTC. It may step; never use it to measure time.
#[must_use]
pub fn now() -> i64 {
    read(Clock::wall_now)
}

/// Monotonic time since the plugin started, for measuring and for own deadlines.
#[must_use]
pub fn monotonic() -> Duration {
    Duration::from_nanos(read(Clock::virtual_now))
}

/// Waits. Cancel safe.
pub async fn sleep(duration: Duration) {
    sleep_until(monotonic().saturating_add(duration)).await;
}

/// Waits until [`monotonic`] shows `at`. Cancel safe.
pub async fn sleep_until(at: Duration) {
    loop {
        // Registered before the clock is read, so that no change is missed.
        let changed = CHANGED.notified();
        let (now, speed) = read(|clock| (Duration::from_nanos(clock.virtual_now()), clock.speed));
        let Some(left) = at.checked_sub(now).filter(|left| !left.is_zero()) else {
            return;
        };
        let real = if speed == 1.0 {
            left
        } else {
            Duration::try_from_secs_f64(left.as_secs_f64() / speed).unwrap_or(Duration::MAX)
        };
        tokio::select! {
            () = tokio::time::sleep(real) => {}
            () = changed => {}
        }
    }
}

/// The time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} ms", .0.as_millis())]
pub struct Elapsed(pub Duration);

/// Waits for `future` at most `limit`.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = sleep(limit) => Err(Elapsed(limit)),
    }
}

/// Ticks at a fixed rate; a late tick is skipped, not made up for.
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    next: Duration,
}

/// An [`Interval`] whose first tick comes at once. A period of zero counts as one millisecond.
#[must_use]
pub fn interval(period: Duration) -> Interval {
    Interval { period: period.max(Duration::from_millis(1)), next: monotonic() }
}

impl Interval {
    /// Waits for the next tick. Cancel safe.
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        let late = monotonic().saturating_sub(self.next);
        let skipped = u32::try_from(late.as_nanos() / self.period.as_nanos()).unwrap_or(u32::MAX);
        self.next = self.next.saturating_add(self.period.saturating_mul(skipped.saturating_add(1)));
    }
}

/// Shifts the wall clock by `offset_ns` and lets time run `speed` times as fast from now on.
pub(crate) fn set(offset_ns: i64, speed: f64) -> Result<(), String> {
    if !SPEED.contains(&speed) {
        return Err(format!("speed: expected {} to {}, found {speed}", SPEED.start(), SPEED.end()));
    }
    {
        let mut clock = CLOCK.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wall_ns = clock.wall_now().saturating_sub(clock.offset_ns);
        let back_to_real = speed == 1.0 && offset_ns == 0;
        *clock = Clock {
            real: Instant::now(),
            virtual_ns: clock.virtual_now(),
            wall_ns: if speed == 1.0 && (!clock.shifted() || back_to_real) { 0 } else { wall_ns },
            offset_ns,
            speed,
        };
    }
    CHANGED.notify_waiters();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because the clock is one per process.
    #[tokio::test]
    async fn the_clock_can_be_shifted_and_sped_up() {
        const HOUR: Duration = Duration::from_secs(3600);
        assert!(set(0, 0.0).is_err());
        assert!(set(0, f64::NAN).is_err());
        let real = now();
        set(-3_600_000_000_000, 1.0).unwrap();
        assert!(now() < real);

        let sleeper = tokio::spawn(sleep(HOUR));
        tokio::task::yield_now().await;
        set(0, 100_000.0).unwrap();
        let started = Instant::now();
        sleeper.await.unwrap();
        sleep(HOUR).await;
        assert_eq!(timeout(HOUR, std::future::pending::<()>()).await, Err(Elapsed(HOUR)));
        assert!(started.elapsed() < HOUR / 60);
        assert!(now() > real + 3_600_000_000_000);

        let mut ticks = interval(HOUR);
        let first = monotonic();
        ticks.tick().await;
        ticks.tick().await;
        assert!(monotonic() - first >= HOUR - Duration::from_secs(60));

        set(0, 1.0).unwrap();
        assert!((now() - system_ns()).abs() < 60_000_000_000, "back on the system's clock");
        assert_eq!(timeout(HOUR, async { 7 }).await, Ok(7));
    }
}

//! No panic leaves a plugin: [`guard`] for calls, [`Caught`] for futures.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

/// Runs `f`; a panic becomes its text.
pub fn guard<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(text)
}

/// Drops a value whose destructor is plugin code.
pub(crate) fn guarded_drop<T>(value: T) {
    if let Err(panic) = guard(|| drop(value)) {
        tracing::error!(panic, "bug in the plugin: panic while dropping its session");
    }
}

fn text(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without text".to_owned(),
    };
    // Dropping a foreign payload may panic again.
    std::mem::forget(payload);
    text
}

/// A future whose panics become its output. Never poll it again after that.
pub(crate) struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Caught<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.0.as_mut();
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(text(payload))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nasty;
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("again");
        }
    }

    #[tokio::test]
    async fn every_kind_of_panic_becomes_text() {
        assert_eq!(guard(|| 7), Ok(7));
        assert_eq!(guard(|| panic!("fixed")), Err::<(), _>("fixed".to_owned()));
        assert_eq!(guard(|| panic!("with {}", 1)), Err::<(), _>("with 1".to_owned()));
        let odd = guard(|| std::panic::panic_any(Nasty));
        assert_eq!(odd, Err::<(), _>("a panic without text".to_owned()));
        guarded_drop(Nasty);
        assert_eq!(Caught::new(async { 7 }).await, Ok(7));
        let bad = Caught::new(async {
            tokio::task::yield_now().await;
            panic!("late");
        });
        assert_eq!(bad.await, Err::<(), _>("late".to_owned()));
    }
}

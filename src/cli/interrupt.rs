//! Ctrl-C: the first press cancels the running statement, a second one, should the statement not stop, the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt;
use tokio::sync::Notify;

const EXIT_INTERRUPTED: i32 = 130;

#[derive(Clone, Default)]
pub struct Interrupt {
    pressed: Arc<Notify>,
    /// Presses since the last `reset`.
    presses: Arc<AtomicU32>,
}

impl Interrupt {
    /// Listens from now on; needs a runtime.
    pub fn listen() -> Self {
        let interrupt = Interrupt::default();
        let heard = interrupt.clone();
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if heard.presses.fetch_add(1, Ordering::SeqCst) >= 1 {
                    std::process::exit(EXIT_INTERRUPTED);
                }
                heard.pressed.notify_one();
            }
        });
        interrupt
    }

    /// Forgets earlier presses: the user was asked for new input since.
    pub fn reset(&self) {
        self.presses.store(0, Ordering::SeqCst);
        let _ = self.pressed.notified().now_or_never();
    }

    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }
}

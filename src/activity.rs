//! What a statement's tasks are doing: whether any of them runs, and whether one waits for a store. A statement of
//! which neither is true makes no progress, and `services::stall` ends it.
//!
//! DataFusion spawns the tasks of a plan through its `JoinSetTracer`; ours notes when each is polled. The statement
//! that a task belongs to travels in a task-local, so that statements side by side are told apart.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::future::BoxFuture;

tokio::task_local! {
    static CURRENT: Arc<Activity>;
}

/// Counters of one statement; shared by all of its tasks.
#[derive(Debug, Default)]
pub struct Activity {
    /// Polls of tasks so far.
    steps: AtomicU64,
    /// Polls, blocking calls and requests to a store that are under way.
    under_way: AtomicUsize,
}

/// Ends what it stands for when it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// The activity of the statement whose task this is; a new one outside of statements.
    pub fn current() -> Arc<Activity> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Runs `f` as a part of the statement: the tasks that it spawns belong to it.
    pub fn within<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Arc::clone(self), f)
    }

    /// Notes one step.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes work, or a wait for something outside, until the answer is dropped.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.step();
        self.begin_quietly()
    }

    /// As `begin`, without a step: for looks that may find nothing new.
    pub fn begin_quietly(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Steps so far; `None` while anything is under way.
    pub fn at_rest(&self) -> Option<u64> {
        let steps = self.steps.load(Ordering::Relaxed);
        (self.under_way.load(Ordering::Relaxed) == 0).then_some(steps)
    }
}

/// Notes that the current statement waits for something outside (a store, a lease) until the answer is dropped.
pub fn waiting() -> Option<UnderWay> {
    CURRENT.try_with(|a| a.begin()).ok()
}

/// Makes DataFusion report the tasks of plans from now on. Only the first call in a process has an effect.
pub fn watch_tasks() {
    // an error says that a tracer is set: ours, by an engine that was opened before
    let _ = set_join_set_tracer(&Tracer);
}

struct Tracer;

impl JoinSetTracer for Tracer {
    fn trace_future(&self, fut: BoxFuture<'static, Box<dyn Any + Send>>) -> BoxFuture<'static, Box<dyn Any + Send>> {
        match CURRENT.try_with(Arc::clone) {
            Ok(activity) => Box::pin(Watched { fut, activity }),
            Err(_) => fut,
        }
    }

    fn trace_block(&self, f: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        match CURRENT.try_with(Arc::clone) {
            // also while it waits for a thread
            Ok(activity) => {
                let under_way = activity.begin();
                Box::new(move || {
                    let result = f();
                    drop(under_way);
                    result
                })
            }
            Err(_) => f,
        }
    }
}

/// A task of a plan, with the statement that it belongs to.
struct Watched {
    fut: BoxFuture<'static, Box<dyn Any + Send>>,
    activity: Arc<Activity>,
}

impl Future for Watched {
    type Output = Box<dyn Any + Send>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _step = this.activity.begin();
        let fut = &mut this.fut;
        this.activity.within(|| fut.as_mut().poll(cx))
    }
}

//! Aggregation on several threads: the labels of a chunk are split between workers by key, and each worker gets every batch
//! of events, of which it takes the runs of its own keys.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::runtime::JoinSet;
use tokio::sync::mpsc;

use super::frames::frames;
use super::runs::{Batch, is_known};
use crate::clock::Micros;
use crate::model::window::{Aggregate, Aggregators, Output, Run, Window, columns};
use crate::operator::pit_join::labels::label_index::LabelIndex;
use crate::operator::pit_join::memory::{Memory, Part};

/// Batches that wait for a worker.
const QUEUE: usize = 4;

/// What all workers ask.
pub struct Question {
    pub aggregates: Vec<Aggregate>,
    /// The columns of events that the aggregates read.
    pub arguments: SchemaRef,
    /// The different windows, and per aggregate which it has.
    pub windows: Vec<Window>,
    pub window_of: Vec<usize>,
    /// The newest event in it is the one whose timestamp is given.
    pub longest: Option<Window>,
}

impl Question {
    pub fn new(aggregates: Vec<Aggregate>, arguments: SchemaRef, longest: Option<Window>) -> Self {
        let mut windows: Vec<Window> = vec![];
        let mut place = |w: &Window| {
            windows.iter().position(|known| known == w).unwrap_or_else(|| {
                windows.push(w.clone());
                windows.len() - 1
            })
        };
        let window_of = aggregates.iter().map(|a| place(&a.window)).collect();
        Question { aggregates, arguments, windows, window_of, longest }
    }

    /// Bytes of the answers of one label, texts and lists aside.
    pub fn bytes_per_label(&self) -> Result<usize> {
        let outputs = Aggregators::new(&self.aggregates, &self.arguments)?.outputs(0);
        Ok(outputs.iter().map(Output::bytes_per_label).sum::<usize>() + size_of::<Option<Micros>>())
    }
}

/// The answers of one worker: a column per aggregate, then the newest event in the longest window.
pub struct Answers {
    /// Which labels, as the index of labels numbers them.
    pub labels: Range<usize>,
    pub columns: Vec<ArrayRef>,
    /// Bytes of texts and lists.
    pub beside: usize,
}

/// A batch, accounted for until the last worker has done with it.
struct Handed {
    batch: Batch,
    _held: Part,
}

/// Workers with their queues; ended when dropped.
pub struct Workers {
    queues: Vec<mpsc::Sender<Arc<Handed>>>,
    tasks: JoinSet<Result<Answers>>,
    memory: Arc<Memory>,
}

impl Workers {
    pub fn start(question: &Arc<Question>, index: &Arc<LabelIndex<i64>>, count: usize, memory: &Arc<Memory>) -> Result<Self> {
        let (mut queues, mut tasks) = (vec![], JoinSet::new());
        for labels in parts(index, count) {
            let (send, receive) = mpsc::channel(QUEUE);
            let worker = Worker::new(Arc::clone(question), Arc::clone(index), labels)?;
            tasks.spawn(worker.run(receive));
            queues.push(send);
        }
        Ok(Workers { queues, tasks, memory: Arc::clone(memory) })
    }

    /// Hands a batch to all workers, and waits where they are behind.
    pub async fn take(&self, batch: Batch) -> Result<()> {
        let mut held = self.memory.part();
        held.grow(batch.events.bytes())?;
        let handed = Arc::new(Handed { batch, _held: held });
        for queue in &self.queues {
            if queue.send(Arc::clone(&handed)).await.is_err() {
                // it has failed: `answers` says why
                break;
            }
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// Whether a worker has failed.
    pub fn is_broken(&self) -> bool {
        self.queues.iter().any(mpsc::Sender::is_closed)
    }

    /// All events have been taken.
    pub async fn answers(mut self) -> Result<Vec<Answers>> {
        self.queues.clear();
        let mut all = vec![];
        while let Some(done) = self.tasks.join_next().await {
            all.push(done.map_err(|e| crate::error::Error::internal(format!("a worker of a window join failed: {e}")))??);
        }
        all.sort_by_key(|a| a.labels.start);
        Ok(all)
    }
}

/// Cuts the labels into parts of about as many each, between two keys.
fn parts(index: &LabelIndex<i64>, count: usize) -> Vec<Range<usize>> {
    let total = index.rows.len();
    let mut cuts: Vec<usize> = (0..=count)
        .map(|i| {
            let wanted = total * i / count;
            let group = index.offsets.partition_point(|o| (*o as usize) < wanted);
            index.offsets.get(group).map_or(total, |o| *o as usize)
        })
        .collect();
    cuts.dedup();
    cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
}

struct Worker {
    question: Arc<Question>,
    index: Arc<LabelIndex<i64>>,
    labels: Range<usize>,
    aggregators: Aggregators,
    outputs: Vec<Output>,
    newest: Vec<Option<Micros>>,
    /// Of the run at hand, per window.
    frames: Vec<Vec<(u32, u32)>>,
}

impl Worker {
    fn new(question: Arc<Question>, index: Arc<LabelIndex<i64>>, labels: Range<usize>) -> Result<Self> {
        let aggregators = Aggregators::new(&question.aggregates, &question.arguments)?;
        let outputs = aggregators.outputs(labels.len());
        let (newest, frames) = (vec![None; labels.len()], vec![vec![]; question.windows.len()]);
        Ok(Worker { question, index, labels, aggregators, outputs, newest, frames })
    }

    async fn run(mut self, mut batches: mpsc::Receiver<Arc<Handed>>) -> Result<Answers> {
        let fixed: usize = self.outputs.iter().map(Output::memory).sum();
        while let Some(handed) = batches.recv().await {
            self.batch(&handed.batch)?;
        }
        let beside = self.outputs.iter().map(Output::memory).sum::<usize>().saturating_sub(fixed);
        let mut columns: Vec<ArrayRef> = self.outputs.into_iter().map(Output::finish).collect::<crate::error::Result<_>>()?;
        columns.push(Arc::new(TimestampMicrosecondArray::from(self.newest).with_timezone("UTC")));
        Ok(Answers { labels: self.labels, columns, beside })
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let events = &batch.events;
        let columns = columns(&events.columns)?;
        for (group, from, to) in &batch.runs {
            let (start, end) = self.index.range(*group);
            if start < end && self.labels.contains(&start) {
                let run = Run { times: &events.times[*from..*to], columns: &columns, first: *from };
                self.key(&run, events.created.as_ref().map(|c| &c[*from..*to]), start, end)?;
            }
        }
        Ok(())
    }

    /// The labels of one key, `start..end` of the index.
    fn key(&mut self, run: &Run<'_>, known: Option<&[Option<Micros>]>, start: usize, end: usize) -> Result<()> {
        let index = Arc::clone(&self.index);
        let question = Arc::clone(&self.question);
        let instants = &index.at[start..end];
        let known = known.zip(index.known_by.get(start..end));
        let first = (start - self.labels.start) as u32;
        for (window, out) in question.windows.iter().zip(&mut self.frames) {
            frames(window, run.times, instants, out);
        }
        self.aggregators.begin();
        for (i, (window, out)) in question.window_of.iter().zip(&mut self.outputs).enumerate() {
            let frames = &self.frames[*window];
            let Some((known, known_by)) = known else {
                self.aggregators.fill(i, run, frames, first, out)?;
                continue;
            };
            for ((frame, label), by) in frames.iter().zip(first..).zip(known_by) {
                let rows: Vec<u32> = (frame.0..frame.1).filter(|r| is_known(known[*r as usize], *by)).collect();
                self.aggregators.of_rows(i, run, &rows, label, out)?;
            }
        }
        if let Some(longest) = &question.longest {
            self.newest(run, known, instants, first as usize, longest);
        }
        Ok(())
    }

    fn newest(
        &mut self,
        run: &Run<'_>,
        known: Option<(&[Option<Micros>], &[Micros])>,
        instants: &[Micros],
        first: usize,
        longest: &Window,
    ) {
        let mut to = 0;
        for (i, t) in instants.iter().enumerate() {
            while run.times.get(to).is_some_and(|e| e <= t) {
                to += 1;
            }
            let last = match known.and_then(|(known, by)| Some((known, by.get(i)?))) {
                Some((known, by)) => (0..to).rev().find(|r| is_known(known[*r], *by)),
                None => to.checked_sub(1),
            };
            let oldest = longest.bounds(*t).0;
            self.newest[first + i] = last.map(|r| run.times[r]).filter(|e| *e >= oldest);
        }
    }
}

//! The handles of one open warehouse: stores, registry, limits. One per process and warehouse.

pub mod commit_queue;
pub mod compaction_queue;
pub mod due;
pub mod expressions;
pub mod freshness;
pub mod lease;
pub mod record;
pub mod served;
pub mod stall;
pub mod view_locks;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use futures::future::BoxFuture;
use tokio::sync::{OnceCell, Semaphore};

use self::commit_queue::CommitQueue;
use self::compaction_queue::CompactionQueue;
use self::lease::{load_lease, maintenance_lease, schedule_lease};
use self::view_locks::ViewLockTable;
use crate::catalog::runs::is_lost;
use crate::catalog::{Registry, Run, Runs, Verdict};
use crate::clock::Clock;
use crate::config::{Config, OnlineKind, OnlineSettings};
use crate::engine::session_state::base_state;
use crate::engine::workers::Workers;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::operator::online_lookup::{LookupContext, LookupHandle};
use crate::progress::Progress;
use crate::store::offline::OfflineStore;
use crate::store::online::{OnlineStore, OnlineView, connect};
use crate::store::waits::WatchedStores;

const TOP_CONSUMERS: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(4);

pub struct Services {
    pub config: Config,
    pub clock: Clock,
    pub progress: Progress,
    pub store: Arc<OfflineStore>,
    pub registry: Arc<Registry>,
    pub runs: Arc<Runs>,
    pub runtime: Arc<RuntimeEnv>,
    online: OnceCell<Arc<dyn OnlineStore>>,
    /// Turns of full loads.
    pub loads: Semaphore,
    /// Rows of small INSERTs that wait for a commit together.
    pub commit_queue: CommitQueue,
    /// Tables that INSERTs have left many small files in.
    pub compaction_queue: CompactionQueue,
    /// Order among the writers of a view's online rows.
    pub view_locks: ViewLockTable,
    /// A `SessionState` without tables: functions, rules, limits. Behind a trait object, because the compiler
    /// would otherwise prove anew at every use that all of it can be sent to another thread (minutes in all).
    pub session: Arc<dyn datafusion::catalog::Session>,
    /// Where statements are planned and run.
    pub workers: Workers,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Services({})", self.store.root())
    }
}

impl Services {
    pub async fn open(config: Config, clock: Clock, progress: Progress) -> Result<Arc<Self>> {
        let store = OfflineStore::open(&config.warehouse, clock.clone()).await?;
        let registry = Registry::open(Arc::clone(&store)).await?;
        let runs = Runs::open(Arc::clone(&store)).await?;
        let mut disk = DiskManagerBuilder::default();
        if let Some(dir) = &config.spill_dir {
            disk = disk.with_mode(DiskManagerMode::Directories(vec![dir.clone()]));
        }
        crate::activity::watch_tasks();
        let pool = TrackConsumersPool::new(FairSpillPool::new(config.memory_limit), TOP_CONSUMERS);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_object_store_registry(Arc::<WatchedStores>::default())
            .with_disk_manager_builder(disk)
            // a kept listing never expires: files that come later would not be seen until a restart
            .with_object_list_cache_limit(0)
            .build_arc()?;
        let session: Arc<dyn datafusion::catalog::Session> = Arc::new(base_state(&config, Arc::clone(&runtime))?);
        let threads = config.threads;
        let loads = Semaphore::new(config.online_settings.concurrent_loads.clamp(1, Semaphore::MAX_PERMITS));
        let services = Services {
            config,
            clock,
            progress,
            store,
            registry,
            runs,
            runtime,
            online: OnceCell::new(),
            loads,
            commit_queue: CommitQueue::default(),
            compaction_queue: CompactionQueue::default(),
            view_locks: ViewLockTable::default(),
            session,
            workers: Workers::start(threads)?,
        };
        if OnlineKind::of(&services.config.online).is_some_and(|kind| kind.is_server) {
            // a wrong address is better refused now than at the first lookup; no server is waited for
            services.online().await?;
        }
        services.settle_runs().await?;
        Ok(Arc::new(services))
    }

    /// Ends the records of runs whose process is gone, as far as they can be judged now; answers how many.
    pub fn settle_runs(&self) -> BoxFuture<'_, Result<usize>> {
        Box::pin(async move {
            let settled = self.runs.settle(|run| self.judge(run)).await?;
            if settled > 0 {
                tracing::warn!(runs = settled, "settled runs that an earlier process left unfinished");
            }
            Ok(settled)
        })
    }

    /// Where only its age says that a run has failed, whoever works on the view may be the one who runs it.
    fn judge(&self, run: Run) -> BoxFuture<'_, Result<Verdict>> {
        Box::pin(async move {
            let verdict = self.runs.judge(&run).await?;
            if matches!(verdict, Verdict::Failed(_)) && is_lost(&run) && self.is_worked_on(&run).await? {
                return Ok(Verdict::Leave);
            }
            Ok(verdict)
        })
    }

    /// Whether anybody holds a lease of the view that a run is of.
    async fn is_worked_on(&self, run: &Run) -> Result<bool> {
        let catalog = self.registry.snapshot().await?;
        let views = catalog.feature_views.values().flat_map(|s| s.versions.values());
        for view in views.filter(|v| run.location.as_deref() == Some(v.location.as_str())) {
            let load = load_lease(&self.online_view(view));
            for lease in [schedule_lease(view), maintenance_lease(view), load] {
                if self.store.lease_holder(&lease).await?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The state that statements clone.
    pub fn base(&self) -> Result<&SessionState> {
        self.session.as_any().downcast_ref().ok_or_else(|| Error::internal("the session state is of another kind"))
    }

    /// The online store; connects at first use.
    pub async fn online(&self) -> Result<Arc<dyn OnlineStore>> {
        let open = || connect(&self.config.online, self.store.local_dir(), &self.config.online_settings, self.clock.clone());
        self.online.get_or_try_init(open).await.cloned()
    }

    pub fn online_view(&self, view: &FeatureView) -> OnlineView {
        OnlineView { warehouse_id: self.store.warehouse_id().to_string(), online_id: view.online_id }
    }
}

/// Hides the type of a large future: the compiler would otherwise look into it again at every caller.
pub fn boxed<'a, T>(f: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(f)
}

/// What ONLINE_LOOKUP needs at execution.
#[derive(Debug)]
struct Lookups {
    store: Arc<dyn OnlineStore>,
    services: Arc<Services>,
}

#[async_trait]
impl LookupContext for Lookups {
    fn store(&self) -> Arc<dyn OnlineStore> {
        Arc::clone(&self.store)
    }
    fn clock(&self) -> Clock {
        self.services.clock.clone()
    }
    fn settings(&self) -> OnlineSettings {
        self.services.config.online_settings.clone()
    }
    fn online_view(&self, view: &FeatureView) -> OnlineView {
        self.services.online_view(view)
    }
    async fn table_is_empty(&self, view: &FeatureView) -> Result<bool> {
        Ok(self.services.store.snapshot(&view.location, None).await?.files().is_empty())
    }
    async fn is_current(&self, view: &FeatureView) -> Result<bool> {
        let catalog = self.services.registry.snapshot().await?;
        Ok(catalog.feature_view_series(&view.name).is_ok_and(|s| s.current == view.version))
    }
}

/// The extension that makes lookups possible in a statement.
pub async fn lookups(services: &Arc<Services>) -> Result<Arc<LookupHandle>> {
    let store = services.online().await?;
    Ok(Arc::new(LookupHandle(Arc::new(Lookups { store, services: Arc::clone(services) }))))
}

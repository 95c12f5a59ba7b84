//! The kinds' drivers, wired to watches and a queue.
//!
//! Watches feed caches; a change puts the keys it concerns into the queue, and so does a proxy that has something new to say; workers
//! take keys off it, each key by one worker at a time. AnalysisRuns, which wait for the answers of others, have a queue and workers of
//! their own: an abort never waits behind a slow measurement. Everything ends, joined, when the token is cancelled.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::queue::{Lane, Lanes, Outcome};
use crate::api::Split;
use crate::fleet::state::Wake;
use crate::fleet::{self, Fleet};
use crate::metrics::Metrics;
use crate::reconcile::apex::{self, Apexes};
use crate::reconcile::events::{Events, Sender};
use crate::reconcile::objects::{Extras, Key, Keys, Objects, Scope};
use crate::reconcile::routers::{Policy, Routers};
use crate::reconcile::{self, Context, Error, outcome};

pub mod queue;

/// Longest look at one key: a hundred writes at the speed of a slow API server. What takes longer hangs, and is tried again.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Apexes looked at side by side.
const APEX_WORKERS: usize = 2;
/// How long a controller that starts waits for proxies that are listed and say nothing.
const FLEET_LIMIT: Duration = Duration::from_secs(3);

/// What the controller is told. Already valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which objects to look after.
    pub scope: Scope,
    /// Where the proxies are found.
    pub fleet: fleet::Config,
    /// Ports of the proxies for Services without a selector.
    pub apexes: apex::Policy,
    /// What to do about `trafficRouting` blocks of other routers.
    pub foreign_routers: Policy,
    /// The class of the Ingresses that the proxies serve.
    pub ingress_class: String,
    /// Write into Ingresses where callers find the proxies: at which Services, labelled with a class, of the fleet's namespace.
    pub ingress_status: bool,
    /// Keys looked at side by side, AnalysisRuns aside.
    pub workers: NonZeroUsize,
    /// AnalysisRuns looked at side by side. Such a look mostly waits; up to 16 metrics of each are asked at once.
    pub run_workers: NonZeroUsize,
    /// How often every Rollout and AnalysisRun is looked at although nothing has changed.
    pub resync: Duration,
}

impl Config {
    fn has_apexes(&self) -> bool {
        matches!(self.apexes, apex::Policy::Ports(_))
    }

    fn extras(&self) -> Extras {
        Extras {
            slices: self.has_apexes(),
            entrances: self.ingress_status.then(|| self.fleet.namespace.clone()),
        }
    }

    /// A controller of all objects there are, with the numbers that Argo's has by default.
    pub fn new(fleet: fleet::Config) -> Self {
        const THREADS: NonZeroUsize = NonZeroUsize::new(10).expect("10 is above 0");
        const ANALYSIS_THREADS: NonZeroUsize = NonZeroUsize::new(30).expect("30 is above 0");
        Self {
            scope: Scope::default(),
            fleet,
            apexes: apex::Policy::default(),
            foreign_routers: Policy::default(),
            ingress_class: "sidestep".to_owned(),
            ingress_status: false,
            workers: THREADS,
            run_workers: ANALYSIS_THREADS,
            resync: Duration::from_secs(900),
        }
    }
}

/// The controller, not yet running.
pub struct Controller {
    context: Arc<Context>,
    config: Config,
    keys: Keys,
    events: Sender,
    metrics: Arc<Metrics>,
}

impl Controller {
    /// A controller that works through `client`.
    pub fn new(client: Client, config: Config) -> Self {
        let keys: Keys = Arc::new(Lanes::default());
        let with_apexes = config.has_apexes();
        let objects = Objects::new(&keys, with_apexes);
        let fleet = Fleet::new(on_fleet(&keys, &objects, with_apexes));
        let (events, sender) = Events::new();
        let context = Arc::new(Context::new(
            client,
            objects,
            config.scope.instance.clone(),
            fleet,
            events,
            Routers::new(config.foreign_routers, config.ingress_class.clone()),
            Apexes::new(config.apexes.clone(), &config.fleet.namespace),
        ));
        Self {
            metrics: Arc::new(Metrics::new(Arc::clone(&context))),
            context,
            config,
            keys,
            events: sender,
        }
    }

    /// The proxies, as the controller sees them.
    pub fn fleet(&self) -> Fleet {
        self.context.fleet.clone()
    }

    /// The controller's metrics, to be registered.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Tells whether every kind has been listed completely.
    pub fn readiness(&self) -> impl Fn() -> bool + Clone + Send + Sync + 'static {
        let context = Arc::clone(&self.context);
        move || context.objects.is_ready()
    }

    /// Watches until `cancel`, and writes from when `leading` returns; every task has ended when it returns.
    ///
    /// Before that it is a warm standby: it has read what the leader has read.
    pub async fn run(self, leading: impl Future<Output = ()>, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        self.watch(&mut tasks, &cancel);
        let begun = async {
            self.context.objects.ready().await;
            if timeout(FLEET_LIMIT, self.context.fleet.known())
                .await
                .is_err()
            {
                warn!("not every proxy has been heard: what those serve counts as not served");
            }
            info!("controller ready");
            leading.await;
        };
        if cancel.run_until_cancelled(begun).await.is_some() {
            self.work(&mut tasks, &cancel);
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(death) = ended {
                // A part that is missing would be missed silently: the role goes down, and whoever runs it starts it anew.
                error!(%death, "a task of the controller died");
                cancel.cancel();
            }
        }
    }

    fn watch(&self, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
        let Self {
            context, config, ..
        } = self;
        context.objects.feed(
            &context.client,
            &config.scope,
            &config.extras(),
            tasks,
            cancel,
        );
        let (fleet, client) = (context.fleet.clone(), context.client.clone());
        let (of_fleet, stop) = (config.fleet.clone(), cancel.clone());
        tasks.spawn(async move { fleet.run(client, of_fleet, stop).await });
        if config.has_apexes() {
            self.keep_apexes(tasks, cancel);
        }
    }

    /// From the first list on, whoever leads: a dead proxy is taken out of slices by every controller there is.
    fn keep_apexes(&self, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
        for _ in 0..APEX_WORKERS {
            let (context, cancel) = (Arc::clone(&self.context), cancel.clone());
            let worker = Worker {
                context: Arc::clone(&context),
                keys: Arc::clone(&self.keys),
                lane: Lane::Constant,
                metrics: Arc::clone(&self.metrics),
            };
            tasks.spawn(async move {
                let ready = cancel.run_until_cancelled(context.objects.ready()).await;
                if ready.is_some() {
                    worker.run(cancel).await;
                }
            });
        }
    }

    fn work(self, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
        let Self {
            context,
            config,
            keys,
            events,
            metrics,
        } = self;
        metrics.lead();
        context.apexes.lead();
        add_apexes(&context, &keys, &config);
        tasks.spawn(events.run(context.client.clone(), cancel.clone()));
        let lanes = [
            (Lane::Quick, config.workers),
            (Lane::Slow, config.run_workers),
        ];
        for (lane, count) in lanes {
            for _ in 0..count.get() {
                let worker = Worker {
                    context: Arc::clone(&context),
                    keys: Arc::clone(&keys),
                    lane,
                    metrics: Arc::clone(&metrics),
                };
                tasks.spawn(worker.run(cancel.clone()));
            }
        }
        let resync = resync(context, keys, config);
        let cancel = cancel.clone();
        tasks.spawn(async move {
            cancel.run_until_cancelled(resync).await;
        });
    }
}

/// Puts every Rollout and AnalysisRun into the queue again and again: what no watch told of is found within this time.
async fn resync(context: Arc<Context>, keys: Keys, config: Config) {
    loop {
        sleep(config.resync).await;
        context.objects.keys().for_each(|key| keys.add(key));
        add_apexes(&context, &keys, &config);
    }
}

fn add_apexes(context: &Context, keys: &Keys, config: &Config) {
    if config.has_apexes() {
        let splits = context.objects.splits.all();
        splits.for_each(|split| keys.add_apexes(&split));
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

struct Worker {
    context: Arc<Context>,
    keys: Keys,
    lane: Lane,
    metrics: Arc<Metrics>,
}

impl Worker {
    async fn run(self, cancel: CancellationToken) {
        // A look that has begun is finished: what it has written is safe at any point, but its status tells the rest.
        let queue = self.keys.lane(self.lane);
        while let Some(key) = cancel.run_until_cancelled(queue.next()).await {
            let outcome = self.look(&key).await;
            queue.finish(&key, outcome);
        }
    }

    async fn look(&self, key: &Key) -> Outcome {
        let begin = Instant::now();
        let now = now();
        let limit = limit(key);
        let Ok(result) = timeout(limit, Box::pin(look(&self.context, key, now))).await else {
            warn!(?key, ?limit, "gave up on a look");
            self.metrics.looked(key, begin.elapsed(), false);
            return Outcome::Failed;
        };
        self.metrics.looked(
            key,
            begin.elapsed(),
            !matches!(result, Err(Error::Api { .. })),
        );
        match &result {
            Err(error) if error.is_trouble() => {
                warn!(?key, error = error as &dyn std::error::Error, "look failed")
            }
            Err(error) => debug!(?key, %error, "looking again"),
            Ok(_) => {}
        }
        outcome(&result, now)
    }
}

/// An AnalysisRun waits for the answers of others.
fn limit(key: &Key) -> Duration {
    match key {
        Key::AnalysisRun(_) => reconcile::analysis::LOOK_LIMIT,
        Key::Rollout(_) | Key::Service(_) | Key::Split(_) | Key::Apex(_) | Key::Ingress(_) => {
            LOOK_LIMIT
        }
    }
}

async fn look(context: &Context, key: &Key, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    match key {
        Key::Rollout(name) => Box::pin(reconcile::rollout::reconcile(context, name, now)).await,
        Key::AnalysisRun(name) => reconcile::analysis::reconcile(context, name, now).await,
        Key::Service(name) => reconcile::services::release(context, name).await,
        Key::Apex(name) => apex::reconcile(context, name, now).await,
        Key::Ingress(name) => reconcile::ingress::reconcile(context, name)
            .await
            .map(|()| None),
        Key::Split(name) => reconcile::split::reconcile(context, name, now).await,
    }
}

/// A proxy has something new to say of a Split.
fn on_fleet(keys: &Keys, objects: &Objects, with_apexes: bool) -> fleet::Listener {
    let (keys, splits) = (Arc::clone(keys), objects.splits.clone());
    let add = move |split: &Split| {
        if with_apexes {
            keys.add_apexes(split);
        }
        keys.add_split(split);
    };
    Box::new(move |wake| match wake {
        Wake::Split {
            namespace, name, ..
        } => splits
            .get(namespace, name)
            .iter()
            .for_each(|split| add(split)),
        Wake::All => splits.all().for_each(|split| add(&split)),
    })
}

#[expect(clippy::disallowed_methods, reason = "the edge: once a look")]
fn now() -> Timestamp {
    Timestamp::now()
}

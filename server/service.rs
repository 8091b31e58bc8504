//! Everything `millstream run` keeps alive: the ingest listener, the pipelines, the admin API, and the
//! order in which they come and go.
//!
//! Start: admin socket, ingest socket, pipelines, API. Stop: ingest takes nothing new and answers what it
//! has taken; pipelines drain and take their last checkpoint; the API, which shows all this, goes last.
//! Ingest has threads of its own; the dataflow and the API run on a runtime each, so that neither a request
//! nor a page load waits for a query.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use millstream_engine::metrics::Metrics;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use millstream_engine::runtime::{self, PipelineHandle, RunOptions};
use millstream_operators::Environment;
use millstream_operators::aws;
use millstream_operators::checkpoint_s3::S3Store;
use millstream_operators::sinks::sqlite::SERVING;
use millstream_operators::sources::http::Ingest;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::api;
use crate::catalog::Catalog;
use crate::cli::Exit;
use crate::monitor::HTTP;
use crate::monitor::publish::{Publishing, Watched};
use crate::notify::deliver::{Deliverer, Delivering};
use crate::notify::settings::NotifyArgs;
use crate::pipelines::Checked;
use crate::scheduling::{self, Scheduling};
use crate::signals::Signals;
use crate::traffic;

/// How long an orderly stop may take. Supervisors wait 30 s (Kubernetes) to 90 s (systemd) before they
/// kill; what is not drained by then is recovered at the next start.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long tasks that ignore their cancellation may hold up the end of the process.
const RUNTIME_LIMIT: Duration = Duration::from_secs(1);
/// Threads of the API: its answers are small, and the cores belong to the dataflow.
const ADMIN_THREADS: usize = 1;

/// What to run, and where.
pub struct Options<'a> {
    /// The pipelines.
    pub plans: &'a [Arc<Plan>],
    /// Pipelines with a schedule, which have a run per date.
    pub scheduled: &'a [Checked],
    /// Where state lives; locked by the caller.
    pub data_dir: &'a Path,
    /// Nodes whose state is dropped.
    pub reset: &'a [String],
    /// Where checkpoints go; none: under `data_dir`.
    pub checkpoint: Option<&'a str>,
    /// The CloudWatch namespace that metrics are published to; none: nowhere.
    pub cloudwatch_metrics: Option<&'a str>,
    /// Where an ad's traffic is read; none: in the data directory.
    pub serve: Option<&'a str>,
    /// Where rows come in.
    pub listen: SocketAddr,
    /// Where the API is served.
    pub admin: SocketAddr,
    /// Jobs and their runs.
    pub catalog: Catalog,
    /// Whether other processes may use the catalog.
    pub shared_catalog: bool,
    /// Who is told of jobs.
    pub notify: &'a NotifyArgs,
}

/// A running process. Fields are dropped in order: what uses comes before what is used.
pub struct Service {
    signals: Signals,
    pipelines: Vec<PipelineHandle>,
    ingest: Option<Arc<Ingest>>,
    admin: SocketAddr,
    publishing: Option<Publishing>,
    delivering: Delivering,
    scheduling: Scheduling,
    admin_runtime: Runtime,
    dataflow: Runtime,
}

impl Service {
    /// Starts everything. What a pipeline cannot open shows in its status; what the process cannot open
    /// ends it here.
    pub fn start(options: Options<'_>) -> anyhow::Result<Service> {
        let dataflow = tokio_runtime("dataflow", cores())?;
        let admin_runtime = tokio_runtime("admin", ADMIN_THREADS)?;
        let signals = {
            let _guard = admin_runtime.enter();
            Signals::new().context("cannot take over signals")?
        };
        let listener = admin_runtime
            .block_on(TcpListener::bind(options.admin))
            .with_context(|| {
                format!(
                    "cannot listen on {}; choose another address with --admin",
                    options.admin
                )
            })?;
        let admin = listener.local_addr().context("the admin socket has no address")?;
        let ingest = start_ingest(&options)?;
        let serving = options.data_dir.join(SERVING);
        let traffic = admin_runtime.block_on(traffic::store(options.serve, &serving))?;
        if let Some(ingest) = &ingest {
            ingest.answer_reads(traffic::reads(traffic.clone(), admin_runtime.handle().clone()));
        }
        let metrics = Arc::new(Metrics::new());
        let pipelines = start_pipelines(&options, &dataflow, ingest.as_ref(), &metrics)?;
        let settings = options.notify.settings(&format!("http://{admin}"));
        let deliverer = Arc::new(Deliverer::new(options.catalog.clone(), settings)?);
        let delivering = {
            let _guard = admin_runtime.enter();
            deliverer.clone().start(!options.shared_catalog)
        };
        let registry = registry(&options, ingest.as_ref());
        let scheduling = admin_runtime.block_on(Scheduling::start(scheduling::Options {
            catalog: options.catalog.clone(),
            scheduled: options.scheduled,
            registry,
            data_dir: options.data_dir,
            dataflow: dataflow.handle().clone(),
        }))?;
        let state = api::Shared::new(api::Process {
            pipelines: pipelines.clone(),
            metrics,
            admin,
            traffic,
            ingest: ingest.as_ref().map(|i| i.local_addr()),
            catalog: options.catalog.clone(),
            scheduler: Some(scheduling.running()),
            deliverer,
            token: api::guard::token(),
        });
        admin_runtime.spawn(api::serve(listener, state));
        let publishing = publish(&options, &admin_runtime, &pipelines, ingest.as_ref())?;
        Ok(Service {
            signals,
            pipelines,
            ingest,
            admin,
            publishing,
            delivering,
            scheduling,
            admin_runtime,
            dataflow,
        })
    }

    /// Where rows come in, if a pipeline takes any over HTTP.
    pub fn ingest(&self) -> Option<SocketAddr> {
        self.ingest.as_ref().map(|ingest| ingest.local_addr())
    }

    /// Where the API is served.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Runs until a signal comes or every pipeline is over, and stops in order.
    pub fn run_to_end(self) -> Exit {
        let Service {
            mut signals,
            pipelines,
            ingest,
            publishing,
            delivering,
            scheduling,
            admin_runtime,
            dataflow,
            ..
        } = self;
        let exit = admin_runtime.block_on(async {
            let stopped = until_signal(&mut signals, &pipelines, scheduling.has_dates()).await;
            let ended = async {
                let exit = match stopped {
                    Some(exit) => exit,
                    None => stop(&pipelines, ingest.as_deref(), &scheduling).await,
                };
                if let Some(publishing) = publishing {
                    publishing.finish().await;
                }
                delivering.finish().await;
                exit
            };
            tokio::select! {
                exit = ended => exit,
                never = signals.end_at_next() => never,
            }
        });
        drop(pipelines);
        drop(ingest);
        dataflow.shutdown_timeout(RUNTIME_LIMIT);
        admin_runtime.shutdown_timeout(RUNTIME_LIMIT);
        exit
    }
}

fn start_ingest(options: &Options<'_>) -> anyhow::Result<Option<Arc<Ingest>>> {
    let sources = options.plans.iter().flat_map(|plan| &plan.sources);
    let mut http = sources.filter(|source| source.kind == HTTP).peekable();
    // Asked to serve, it does, whether or not rows come in.
    if http.peek().is_none() && options.serve.is_none() {
        return Ok(None);
    }
    let paths: Vec<&str> = http
        .filter_map(|source| source.options["path"].as_str())
        .collect();
    let ingest = Ingest::start(options.listen, Default::default(), &paths).with_context(|| {
        format!(
            "cannot take rows at {}; choose another address with --listen",
            options.listen
        )
    })?;
    Ok(Some(ingest))
}

/// What pipelines of this process can name.
fn registry(options: &Options<'_>, ingest: Option<&Arc<Ingest>>) -> Registry {
    millstream_operators::registry(Environment {
        ingest: ingest.cloned(),
        serving: Some(options.data_dir.join(SERVING)),
    })
}

fn start_pipelines(
    options: &Options<'_>,
    dataflow: &Runtime,
    ingest: Option<&Arc<Ingest>>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Vec<PipelineHandle>> {
    let registry = registry(options, ingest);
    let start = |plan: &Arc<Plan>| {
        let checkpoints = match options.checkpoint {
            Some(url) => Some(dataflow.block_on(S3Store::open(url, &plan.name))?),
            None => None,
        };
        let _guard = dataflow.enter();
        Ok(runtime::start(
            plan.clone(),
            RunOptions {
                data_dir: options.data_dir.to_path_buf(),
                registry: registry.clone(),
                metrics: metrics.clone(),
                reset: options.reset.to_vec(),
                checkpoints: checkpoints.map(|store| Arc::new(store) as _),
                cores: runtime::cores(),
                timer: runtime::timer::real(),
                bounded: None,
                run: None,
            },
        ))
    };
    options.plans.iter().map(start).collect()
}

/// Starts to publish metrics, where that is asked for.
fn publish(
    options: &Options<'_>,
    runtime: &Runtime,
    pipelines: &[PipelineHandle],
    ingest: Option<&Arc<Ingest>>,
) -> anyhow::Result<Option<Publishing>> {
    let Some(namespace) = options.cloudwatch_metrics else {
        return Ok(None);
    };
    let client = runtime.block_on(aws::cloudwatch(&Default::default()))?;
    let watched = Watched {
        pipelines: pipelines.to_vec(),
        ingest: ingest.cloned(),
        data_dir: options.data_dir.to_path_buf(),
    };
    let _guard = runtime.enter();
    Ok(Some(Publishing::start(client, namespace, watched)))
}

/// Waits for a signal (none) or for the end of every pipeline (how the process ends): with a schedule there is none.
async fn until_signal(signals: &mut Signals, pipelines: &[PipelineHandle], has_dates: bool) -> Option<Exit> {
    tokio::select! {
        exit = all_over(pipelines), if !has_dates => Some(exit),
        (name, _) = signals.next() => {
            tracing::info!("{name}: stopping, at most {} s; a second signal ends at once", STOP_LIMIT.as_secs());
            None
        }
    }
}

/// Takes nothing new, drains, takes the last checkpoints.
async fn stop(pipelines: &[PipelineHandle], ingest: Option<&Ingest>, scheduling: &Scheduling) -> Exit {
    let drained = async {
        // Before ingest goes: a source that ends by itself has ended for good, and its windows with it; one
        // that is stopped goes on from its checkpoint.
        pipelines.iter().for_each(PipelineHandle::stop);
        let closed = async {
            if let Some(ingest) = ingest {
                ingest.shutdown().await;
            }
        };
        let (exit, (), ()) = futures::join!(all_over(pipelines), closed, scheduling.stop());
        exit
    };
    match tokio::time::timeout(STOP_LIMIT, drained).await {
        Ok(exit) => {
            tracing::info!("stopped");
            exit
        }
        Err(_) => {
            tracing::error!(
                "not drained within {} s; what is left is recovered at the next start",
                STOP_LIMIT.as_secs()
            );
            Exit::Failed
        }
    }
}

/// Waits for the end of every pipeline; one that failed for good (which it has logged) fails the process.
async fn all_over(pipelines: &[PipelineHandle]) -> Exit {
    let ends = join_all(pipelines.iter().map(PipelineHandle::done)).await;
    if ends.iter().all(Result::is_ok) {
        Exit::Ok
    } else {
        Exit::Failed
    }
}

fn tokio_runtime(name: &str, threads: usize) -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name} threads"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

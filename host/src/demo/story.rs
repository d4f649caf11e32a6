//! What the demo shows, step by step.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use orb_protocol::client::{Answer, CallError, CallOptions, CallReport, Client, Deployed, Draft, SuperAddr};
use orb_protocol::fault::FaultKind;
use orb_protocol::id::{ArtifactHash, FunctionId, NodeId};
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::Version;
use orb_protocol::name::Name;

use super::network::{HOSTS, Network};
use super::steps::{Detail, Steps};
use crate::builder::{self, Built};
use crate::config::ByteSize;
use crate::failure::Failure;
use crate::format;
use crate::home::Home;
use crate::local_sandbox::LocalSandbox;
use crate::project::Project;

/// Hosts that should hold the function: fewer than there are.
const REPLICAS: u16 = 2;
/// How long the demo waits for hosts: several times what a slow machine takes to compile the engine.
const SEED_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether the hosts are connected.
const POLL: Duration = Duration::from_millis(5);
/// Fuel of the runaway: enough for some tenths of a second.
const RUNAWAY_FUEL: u64 = 500_000_000;

const INPUT: &[u8] = b"{\"name\":\"world\"}";
const FIRST: &str = "export default (input) => ({ greeting: `Hello, ${input.name}` });\n";
const SECOND: &str = "export default (input) => ({ greeting: `Bonjour, ${input.name}` });\n";
const RUNAWAY: &str = "export default () => { for (;;) {} };\n";

/// Who plays: a developer with a key, and a caller that stays connected.
struct Stage {
    super_node: SuperAddr,
    client: Client,
    key: OwnerKey,
}

/// The same play at two super nodes.
struct Stages {
    first: Stage,
    second: Stage,
}

/// Where a call was answered.
#[derive(Debug, Clone, Copy)]
struct AnsweredBy(NodeId);

/// Tells the story. The names of the steps are what scripts see, too.
pub(super) async fn tell(steps: &mut Steps, network: &mut Network) {
    let stages = steps
        .run("start two super nodes and three hosts", start(network))
        .await;
    let stage = stages.as_ref().map(|stages| &stages.first);
    let other = stages.as_ref().map(|stages| &stages.second);
    let hello = &Function::new(network, "hello");
    let runaway = &Function::new(network, "runaway");
    let built = steps
        .run("build a JavaScript function", hello.build(FIRST, ""))
        .await;
    let deployed = steps.run("deploy it", hello.deploy(stage, built, 1)).await;
    steps
        .run("wait until it is seeded", seeded(stage, deployed))
        .await;
    steps
        .run("call it", hello.call(stage, network, "Hello, world"))
        .await;
    steps
        .run(
            "call it through the other super node",
            hello.call(other, network, "Hello, world"),
        )
        .await;
    steps.run("edit it and deploy again", hello.edit(stage)).await;
    steps
        .run(
            "a call sees the new answer",
            hello.call(stage, network, "Bonjour, world"),
        )
        .await;
    steps.run("roll back", hello.roll_back(stage)).await;
    let last = steps
        .run(
            "a call sees the old answer again",
            hello.call(stage, network, "Hello, world"),
        )
        .await;
    steps
        .run("kill -9 the host that answered last", async {
            kill(network, last)
        })
        .await;
    steps
        .run(
            "a call is still answered",
            hello.call_elsewhere(stage, network, last),
        )
        .await;
    steps
        .run("fuel stops a runaway function", runaway.run_away(stage, network))
        .await;
    let before = steps
        .run("kill -9 the super node that it was deployed at", async {
            kill_super_node(stage, network)
        })
        .await;
    steps
        .run("a call through the other one is answered", async {
            given(before)?;
            hello.call(other, network, "Hello, world").await
        })
        .await;
    steps.run("decommission", hello.decommission(other)).await;
    steps
        .run(
            "a call says that it is decommissioned",
            hello.is_decommissioned(other),
        )
        .await;
    steps
        .run(
            "the host that was killed comes back and hears of it",
            hello.is_heard_of(other, network),
        )
        .await;
}

/// What an earlier step should have given. A step is not run if one before it failed, so this is
/// there; and if not, the step fails.
fn given<T>(value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::local("an earlier step gave nothing to go on with"))
}

async fn start(network: &mut Network) -> Result<(Stages, Detail), Failure> {
    let first = network.start_super_node(&[]).await?;
    let second = network.start_super_node(std::slice::from_ref(&first)).await?;
    let compiled = Instant::now();
    compile_the_engine(network.cache()).await?;
    let compiled = compiled.elapsed();
    network.start_hosts(&[first.clone(), second.clone()]).await?;
    let detail = |text: fn(&SuperAddr) -> String| {
        let (compiled, names) = (format::time(compiled), [&first, &second].map(text).join(" and "));
        format!("super nodes {names} · {HOSTS} hosts · JavaScript engine compiled in {compiled}")
    };
    let detail = Detail::with_short(
        detail(SuperAddr::to_string),
        detail(|address| address.id().short()),
    );
    let stages = Stages {
        first: stage(first, network).await?,
        second: stage(second, network).await?,
    };
    Ok((stages, detail))
}

/// A caller at a super node, once all hosts are connected to it.
async fn stage(super_node: SuperAddr, network: &mut Network) -> Result<Stage, Failure> {
    let client = Client::builder()
        .super_nodes(vec![super_node.clone()])
        .connect()
        .await?;
    wait_for_hosts(&client, network).await?;
    Ok(Stage {
        super_node,
        client,
        key: Home::at(&network.folder().join("home")).owner_key()?,
    })
}

/// Compiles the engine before the hosts do: they find it in the cache that all share, instead of
/// compiling it at the same time three times over.
async fn compile_the_engine(cache: PathBuf) -> Result<(), Failure> {
    let sandbox = LocalSandbox::new(cache);
    let nothing = sandbox.get()?.compile_javascript(b"", "index.js").await;
    nothing
        .map(drop)
        .map_err(|error| Failure::local(error.to_string()))
}

async fn wait_for_hosts(client: &Client, network: &mut Network) -> Result<(), Failure> {
    let deadline = Instant::now() + SEED_MAX;
    while connected_hosts(client).await? < HOSTS {
        network.check()?;
        if Instant::now() > deadline {
            return Err(Failure::local(format!(
                "the hosts are not connected after {SEED_MAX:?}"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Hosts that the super node knows of. It says so whatever the function is that is asked for.
async fn connected_hosts(client: &Client) -> Result<usize, Failure> {
    let nothing = FunctionId::from_bytes([0; 32]);
    let report = client
        .wait_ready(nothing, Version::default(), 0, Duration::ZERO)
        .await?;
    Ok(report.hosts as usize)
}

/// Waits until as many hosts are ready as the function asks for.
async fn seeded(stage: Option<&Stage>, deployed: Option<Deployed>) -> Result<((), Detail), Failure> {
    let (stage, deployed) = (given(stage)?, given(deployed)?);
    let (function, version) = (deployed.manifest.function(), deployed.manifest.version());
    let report = stage
        .client
        .wait_ready(function, version, REPLICAS, SEED_MAX)
        .await?;
    if report.ready.len() < usize::from(REPLICAS) {
        return Err(Failure::local(format!(
            "only {} of {REPLICAS} hosts are ready",
            report.ready.len()
        )));
    }
    let ids = |text: fn(&NodeId) -> String| report.ready.iter().map(text).collect::<Vec<_>>().join(", ");
    let of = format!("{} of {HOSTS} hosts", report.ready.len());
    let detail = Detail::with_short(
        format!("{of}: {}", ids(NodeId::to_string)),
        format!("{of}: {}", ids(NodeId::short)),
    );
    Ok(((), detail))
}

fn kill(network: &mut Network, last: Option<AnsweredBy>) -> Result<((), Detail), Failure> {
    let AnsweredBy(host) = given(last)?;
    let process = network.process_of(host).unwrap_or_default();
    network.kill(host)?;
    let detail = Detail::with_short(
        format!("host {host} · process {process}"),
        format!("host {} · process {process}", host.short()),
    );
    Ok(((), detail))
}

fn kill_super_node(stage: Option<&Stage>, network: &mut Network) -> Result<((), Detail), Failure> {
    let address = &given(stage)?.super_node;
    let process = network.kill_first_super_node()?;
    let text = |name: String| format!("super node {name} · process {process}");
    let detail = Detail::with_short(text(address.to_string()), text(address.id().short()));
    Ok(((), detail))
}

/// A function of the demo.
struct Function {
    name: &'static str,
    folder: PathBuf,
    home: Home,
    sandbox: LocalSandbox,
}

impl Function {
    fn new(network: &Network, name: &'static str) -> Self {
        Self {
            name,
            folder: network.folder().join(name),
            sandbox: LocalSandbox::new(network.cache()),
            home: Home::at(&network.folder().join("home")),
        }
    }

    fn id(&self, stage: &Stage) -> FunctionId {
        FunctionId::derive(&stage.key.id(), &self.function_name())
    }

    fn function_name(&self) -> Name {
        self.name.parse().expect("the demo's functions have good names")
    }

    /// Writes the project, as a developer would, and builds it.
    async fn build(&self, source: &str, limits: &str) -> Result<((Project, Built), Detail), Failure> {
        let toml = format!(
            "schema = 1\nname = \"{}\"\nmain = \"index.js\"\nreplicas = {REPLICAS}\nidempotent = true\n{limits}",
            self.name
        );
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(self.folder.join("orb.toml"), toml))
            .and_then(|()| std::fs::write(self.folder.join("index.js"), source))
            .map_err(|error| Failure::local(format!("cannot write the function: {error}")))?;
        let project = Project::open(&self.folder)?;
        let built = builder::build(&project, &self.sandbox).await?;
        let detail = Detail::new(format!(
            "index.js, {} → {}",
            ByteSize(built.source_bytes.unwrap_or_default()),
            ByteSize(built.wasm.len() as u64)
        ));
        Ok(((project, built), detail))
    }

    /// Publishes, and waits for `count` hosts.
    async fn deploy(
        &self,
        stage: Option<&Stage>,
        built: Option<(Project, Built)>,
        count: u16,
    ) -> Result<(Deployed, Detail), Failure> {
        let (stage, (project, built)) = (given(stage)?, given(built)?);
        let draft = Draft {
            name: self.function_name(),
            publish: built.publish(&project),
            message: String::new(),
        };
        let began = Instant::now();
        let deployed = stage
            .client
            .deploy(&stage.key, draft, built.wasm.clone(), false)
            .await?;
        let stored = began.elapsed();
        let kept = self
            .home
            .artifacts()
            .keep(&project.name, deployed.manifest.version(), &built.wasm);
        kept.map_err(|error| Failure::local(format!("cannot keep the artifact: {error}")))?;
        ready(stage, &deployed, count).await?;
        let detail = format!(
            "revision {} · stored in {}, on the first host after {}",
            deployed.manifest.version().revision,
            format::time(stored),
            format::time(began.elapsed())
        );
        Ok((deployed, Detail::new(detail)))
    }

    async fn edit(&self, stage: Option<&Stage>) -> Result<(Deployed, Detail), Failure> {
        let (built, _) = self.build(SECOND, "").await?;
        self.deploy(stage, Some(built), 1).await
    }

    async fn roll_back(&self, stage: Option<&Stage>) -> Result<((), Detail), Failure> {
        let stage = given(stage)?;
        let name = self.function_name();
        let kept = |artifact: &ArtifactHash| self.home.artifacts().find(&name, *artifact);
        let deployed = stage.client.rollback(&stage.key, &name, None, kept).await?;
        ready(stage, &deployed, 1).await?;
        let revision = deployed.manifest.version().revision;
        Ok((
            (),
            Detail::new(format!("revision {revision} has the content of revision 1")),
        ))
    }

    /// Makes a call; the caller need not be the developer.
    async fn ask(&self, stage: &Stage, caller: &Client, input: &'static [u8]) -> Result<Answer, CallError> {
        let input = Bytes::from_static(input);
        // On the heap: the client's future is a large one.
        Box::pin(caller.call(self.id(stage), input, CallOptions::default())).await
    }

    /// Calls, and checks the answer.
    async fn call(
        &self,
        stage: Option<&Stage>,
        network: &Network,
        greeting: &str,
    ) -> Result<(AnsweredBy, Detail), Failure> {
        let stage = given(stage)?;
        let answer = self.ask(stage, &stage.client, INPUT).await?;
        check_answer(&answer, greeting)?;
        let output = String::from_utf8_lossy(&answer.output);
        Ok((
            AnsweredBy(answer.report.host),
            place(network, &answer.report, &output)?,
        ))
    }

    /// The same, and the host must be another one than `before`.
    async fn call_elsewhere(
        &self,
        stage: Option<&Stage>,
        network: &Network,
        before: Option<AnsweredBy>,
    ) -> Result<((), Detail), Failure> {
        let (AnsweredBy(host), detail) = self.call(stage, network, "Hello, world").await?;
        if host == given(before)?.0 {
            return Err(Failure::local(format!(
                "the host {host} was killed, and is said to have answered"
            )));
        }
        Ok(((), detail))
    }

    /// Deploys a function that never ends, calls it, and checks what stopped it; then its host must
    /// still answer.
    async fn run_away(&self, stage: Option<&Stage>, network: &Network) -> Result<((), Detail), Failure> {
        let limits = format!("[limits]\nfuel = {RUNAWAY_FUEL}\n");
        let (built, _) = self.build(RUNAWAY, &limits).await?;
        self.deploy(stage, Some(built), 1).await?;
        let stage = given(stage)?;
        let result = self.ask(stage, &stage.client, b"null").await;
        let error = expect_fault(result, FaultKind::FuelExhausted)?;
        let text = error.fault.message;
        let detail = match error.report {
            Some(report) => place(network, &report, &text)?,
            None => Detail::new(text),
        };
        Ok(((), detail))
    }

    async fn decommission(&self, stage: Option<&Stage>) -> Result<((), Detail), Failure> {
        let stage = given(stage)?;
        let ended = stage
            .client
            .decommission(&stage.key, &self.function_name(), String::new())
            .await?;
        let revision = ended.manifest.version().revision;
        Ok(((), Detail::new(format!("revision {revision} is a tombstone"))))
    }

    /// Asks as the caller that knew the function, and as one that never heard of it.
    async fn is_decommissioned(&self, stage: Option<&Stage>) -> Result<((), Detail), Failure> {
        let stage = given(stage)?;
        let newcomer = Client::builder()
            .super_nodes(vec![stage.super_node.clone()])
            .connect()
            .await?;
        let mut message = String::new();
        for client in [&stage.client, &newcomer] {
            let result = self.ask(stage, client, INPUT).await;
            message = expect_fault(result, FaultKind::Decommissioned)?.fault.message;
        }
        Ok((
            (),
            Detail::new(format!("{}: {message}", FaultKind::Decommissioned.label())),
        ))
    }

    /// Starts the host that was killed, and waits until it has thrown away what it held: it was off when
    /// the function was ended.
    async fn is_heard_of(
        &self,
        stage: Option<&Stage>,
        network: &mut Network,
    ) -> Result<((), Detail), Failure> {
        let stage = given(stage)?;
        let revisions = stage.client.versions(self.id(stage)).await?;
        let artifacts: Vec<ArtifactHash> = revisions
            .iter()
            .filter_map(|revision| Some(revision.manifest.publish()?.artifact))
            .collect();
        let host = network.start_again(std::slice::from_ref(&stage.super_node))?;
        let held = artifacts
            .iter()
            .filter(|artifact| network.keeps(host, artifact))
            .count();
        let deadline = Instant::now() + SEED_MAX;
        while artifacts.iter().any(|artifact| network.keeps(host, artifact)) {
            network.check()?;
            if Instant::now() > deadline {
                return Err(Failure::local(format!("host {host} still keeps the function")));
            }
            tokio::time::sleep(POLL).await;
        }
        let text = |host: &str| format!("host {host} kept {held} artifacts of it, and keeps none any more");
        let detail = Detail::with_short(text(&host.to_string()), text(&host.short()));
        Ok(((), detail))
    }
}

async fn ready(stage: &Stage, deployed: &Deployed, count: u16) -> Result<(), Failure> {
    let (function, version) = (deployed.manifest.function(), deployed.manifest.version());
    let report = stage
        .client
        .wait_ready(function, version, count, SEED_MAX)
        .await?;
    if report.ready.len() < usize::from(count) {
        let reasons: Vec<&str> = report.refused.iter().map(|(_, reason)| reason.as_str()).collect();
        return Err(Failure::local(format!(
            "no host is ready for it after {SEED_MAX:?} {}",
            reasons.join("; ")
        )));
    }
    Ok(())
}

fn check_answer(answer: &Answer, greeting: &str) -> Result<(), Failure> {
    let expected = serde_json::json!({ "greeting": greeting });
    match serde_json::from_slice::<serde_json::Value>(&answer.output) {
        Ok(output) if output == expected => Ok(()),
        _ => {
            let output = String::from_utf8_lossy(&answer.output);
            Err(Failure::local(format!(
                "the answer is {output}, and should be {expected}"
            )))
        }
    }
}

/// The failure that a call should have.
fn expect_fault(result: Result<Answer, CallError>, kind: FaultKind) -> Result<CallError, Failure> {
    match result {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(error.into()),
        Ok(answer) => {
            let host = answer.report.host;
            Err(Failure::local(format!(
                "host {host} answered, and `{}` was expected",
                kind.label()
            )))
        }
    }
}

/// What was answered, and where: by which host, in which process.
fn place(network: &Network, report: &CallReport, what: &str) -> Result<Detail, Failure> {
    let host = report.host;
    let process = network
        .process_of(host)
        .ok_or_else(|| Failure::local(format!("{host} answered, which is not one of the demo's hosts")))?;
    let revision = report.version.revision;
    let text = |host: &str| format!("{what} · revision {revision} · host {host} · process {process}");
    Ok(Detail::with_short(text(&host.to_string()), text(&host.short())))
}

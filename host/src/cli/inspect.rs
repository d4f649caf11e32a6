//! `orb inspect`: what a function is, and where its replicas are.

use clap::Args;
use orb_protocol::client::Inspection;
use orb_protocol::manifest::Publish;
use orb_protocol::wire::directory::{HostHint, Replica, ReplicaState};
use serde::Serialize;

use super::context::Context;
use super::describe::{self, LimitsDocument, ReplicaDocument};
use super::function::{FunctionRef, Target};
use crate::config::ByteSize;
use crate::failure::Failure;
use crate::format;
use crate::output::{Output, Table, Tone};

/// Show what a function is, and where its replicas are
#[derive(Debug, Args)]
#[command(after_help = "\
Any super node may be asked: one that does not place the function asks the one that does. SUPER NODE
is the one that a host is connected to, and its address. Healthy are hosts that can answer for the
live revision now.

Example:
  orb inspect hello")]
pub(crate) struct InspectCommand {
    /// Which function: NAME or OWNER/NAME
    #[arg(value_name = "FN")]
    function: FunctionRef,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    revision: describe::Revision,
    #[serde(flatten)]
    publish: Option<PublishDocument>,
    /// Replicas that can answer for the live revision.
    healthy: usize,
    hosts: Vec<ReplicaDocument>,
    /// Why there are fewer than wanted; empty if there are not.
    note: String,
}

#[derive(Serialize)]
struct PublishDocument {
    engine: Option<String>,
    limits: LimitsDocument,
    /// `null`: anybody.
    callers: Option<Vec<String>>,
    idempotent: bool,
    replicas: u16,
    content_type: String,
}

impl InspectCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = self.function.locate_whole(&context.home)?;
        let inspection = context
            .connect_for(&target)
            .await?
            .inspect(target.id)
            .await
            .map_err(|error| target.failure(error.fault))?;
        let healthy = healthy(&inspection);
        let document = Document {
            revision: describe::Revision::of(&inspection.manifest),
            publish: inspection.manifest.publish().map(PublishDocument::from),
            healthy,
            hosts: inspection.replicas.iter().map(ReplicaDocument::from).collect(),
            note: inspection.note.clone(),
        };
        let summary = summary(&target, &inspection, healthy);
        let text = describe_for_people(&target, &inspection, &summary, &context.out);
        context.out.result(&document, &summary, &text)
    }
}

impl From<&Publish> for PublishDocument {
    fn from(publish: &Publish) -> Self {
        let callers = publish.visibility.callers.as_ref();
        Self {
            engine: publish.engine.map(|engine| engine.to_string()),
            limits: publish.limits.into(),
            callers: callers.map(|keys| keys.iter().map(ToString::to_string).collect()),
            idempotent: publish.idempotent,
            replicas: publish.replicas,
            content_type: publish.content_type.clone(),
        }
    }
}

fn healthy(inspection: &Inspection) -> usize {
    let live = inspection.manifest.version();
    let can_answer =
        |replica: &&Replica| replica.state == ReplicaState::Ready && replica.host.version >= live;
    inspection.replicas.iter().filter(can_answer).count()
}

fn summary(target: &Target, inspection: &Inspection, healthy: usize) -> String {
    let revision = inspection.manifest.version().revision;
    match inspection.manifest.publish() {
        Some(publish) => format!(
            "{} revision {revision}: {healthy} of {} replicas healthy",
            target.shown, publish.replicas
        ),
        None => format!("{} was decommissioned (revision {revision})", target.shown),
    }
}

fn describe_for_people(target: &Target, inspection: &Inspection, summary: &str, out: &Output) -> String {
    let manifest = inspection.manifest.manifest();
    let mut lines = vec![
        out.paint(Tone::Strong, summary),
        format!("  owner      {}", target.owner),
    ];
    if let Some(publish) = inspection.manifest.publish() {
        lines.extend(publish_lines(publish));
    }
    lines.push(format!(
        "  published  {}  {}",
        format::rfc3339(manifest.time_ms),
        describe::one_line(&manifest.message)
    ));
    if !inspection.note.is_empty() {
        let note = format!("  note       {}", describe::one_line(&inspection.note));
        lines.push(out.paint(Tone::Warning, note));
    }
    if !inspection.replicas.is_empty() {
        lines.push(String::new());
        lines.push(replica_table(&inspection.replicas, out));
    }
    lines.join("\n")
}

fn publish_lines(publish: &Publish) -> Vec<String> {
    let limits = &publish.limits;
    let callers = match &publish.visibility.callers {
        None => "anybody".to_owned(),
        Some(keys) => format!("the owner and {}", format::count(keys.len(), "key")),
    };
    let again = if publish.idempotent {
        "idempotent: a lost call is run again"
    } else {
        "not idempotent"
    };
    vec![
        format!(
            "  kind       {}, {}",
            describe::kind(publish.kind),
            publish.content_type
        ),
        format!(
            "  artifact   {} ({})",
            publish.artifact,
            ByteSize(publish.artifact_bytes)
        ),
        format!(
            "  limits     fuel {}, memory {}, time {} ms, input {}, output {}, log {}",
            format::grouped(limits.fuel),
            ByteSize(limits.memory_bytes),
            format::grouped(limits.time_ms),
            ByteSize(limits.input_bytes),
            ByteSize(limits.output_bytes),
            ByteSize(limits.log_bytes),
        ),
        format!("  callers    {callers}; {again}"),
    ]
}

/// Which one a host is connected to, and where that is reached.
fn super_node(host: &HostHint) -> String {
    match host.super_node() {
        Some((node, Some(address))) => format!("{}@{}", node.short(), describe::one_line(address)),
        Some((node, None)) => node.short(),
        None => "-".to_owned(),
    }
}

fn replica_table(replicas: &[Replica], out: &Output) -> String {
    let mut table = Table::new([
        "HOST",
        "STATE",
        "REVISION",
        "SUPER NODE",
        "RTT",
        "QUEUE",
        "RUN",
        "REASON",
    ]);
    for replica in replicas {
        let host = &replica.host;
        let micros = |us: u32| match us {
            0 => "-".to_owned(),
            us => format::time(std::time::Duration::from_micros(us.into())),
        };
        table.row([
            host.node.short(),
            describe::replica_state(replica.state).to_owned(),
            host.version.revision.to_string(),
            super_node(host),
            micros(host.rtt_us),
            format!("{}/{}", host.queue, host.capacity),
            micros(host.run_us),
            describe::one_line(&replica.reason),
        ]);
    }
    table.render(out)
}

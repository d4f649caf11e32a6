//! A host that holds nothing: a real endpoint with a real registration and real heart-beats.

use std::time::Duration;

use anyhow::{Context, Result};
use orb_protocol::key::NodeKey;
use orb_protocol::manifest::Limits;
use orb_protocol::quic::frames::{read_message, write_message};
use orb_protocol::quic::{Connection, Endpoint, EndpointConfig, SuperAddr};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::{
    BEAT_INTERVAL_MS, Beat, Holding, HostMessage, Offer, Register, Registered, SuperMessage,
};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use tokio::task::JoinHandle;

/// A registered host; it leaves when dropped.
#[derive(Debug)]
pub struct IdleHost {
    _endpoint: Endpoint,
    connection: Connection,
    beats: JoinHandle<()>,
}

impl IdleHost {
    /// Connects and registers at a super node, `NODEID@IP:PORT`, and beats from then on.
    ///
    /// # Errors
    /// The super node refuses.
    pub async fn register(address: &str) -> Result<Self> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let endpoint = Endpoint::bind(EndpointConfig::client(NodeKey::from_seed(seed)))?;
        let address: SuperAddr = address.parse()?;
        let address = address.resolve().await?.remove(0);
        let connection = endpoint.connect(address).await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        write_message(&mut send, &Request::from(register())).await?;
        let reply: Reply = read_message(&mut receive, MESSAGE_LEN_MAX).await?;
        let _: Registered = reply.into_result()?;
        let none = Holding {
            replicas: Vec::new(),
            last: true,
            extensions: Extensions::none(),
        };
        write_message(&mut send, &HostMessage::from(none)).await?;
        let told: SuperMessage = read_message(&mut receive, MESSAGE_LEN_MAX).await?;
        matches!(told, SuperMessage::Synced(_))
            .then_some(())
            .context("the host is not synced")?;
        let beats = tokio::spawn(async move {
            let _receive = receive;
            loop {
                tokio::time::sleep(Duration::from_millis(BEAT_INTERVAL_MS)).await;
                if write_message(&mut send, &HostMessage::from(beat()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Self {
            _endpoint: endpoint,
            connection,
            beats,
        })
    }

    /// Whether the super node still has it.
    pub fn is_connected(&self) -> bool {
        !self.connection.is_closed()
    }
}

impl Drop for IdleHost {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

fn register() -> Register {
    Register {
        offer: Offer {
            capacity: 1,
            ceiling: Limits::default(),
            artifact_bytes_max: 1 << 20,
            disk_free_bytes: 1 << 30,
            engines: Vec::new(),
            operator: String::new(),
            extensions: Extensions::none(),
        },
        invite: String::new(),
        software: "bench".to_owned(),
        extensions: Extensions::none(),
    }
}

fn beat() -> Beat {
    Beat {
        running: 0,
        waiting: 0,
        disk_free_bytes: 1 << 30,
        run_times_us: Vec::new(),
        failure_permille: 0,
        extensions: Extensions::none(),
    }
}

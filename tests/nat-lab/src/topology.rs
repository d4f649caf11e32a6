//! The machines and their routers.
//!
//! ```text
//!   caller ── Home ────────────┐                      ┌──────────── Home ── host
//!   caller ── IspCgnat ────────┤      internet        ├──────── IspCgnat ── host
//!   caller ── IspCgnatSymmetric┴──────────┬───────────┴─IspCgnatSymmetric── host
//!                              data centre (no NAT)
//!                              super node, developer
//! ```

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use patchbay::{Device, Lab, LabBuilder, Router, RouterPreset};

/// The kinds of NAT under test, and what they are called in results.
const KINDS: [(&str, RouterPreset); 3] = [
    ("home", RouterPreset::Home),
    ("cgnat", RouterPreset::IspCgnat),
    ("symmetric", RouterPreset::IspCgnatSymmetric),
];

/// All machines. The networks are gone when it is dropped.
pub(crate) struct Topology {
    /// Where the super node runs, with a public address.
    pub(crate) super_node: Device,
    /// Where functions are published from, with a public address.
    pub(crate) developer: Device,
    /// Where functions are called from, each behind a NAT.
    pub(crate) callers: Vec<Site>,
    /// Where functions run, each behind a NAT.
    pub(crate) hosts: Vec<Site>,
    // The last field: machines go before the lab that they are in.
    _lab: Lab,
}

/// A machine behind a NAT.
#[derive(Clone)]
pub(crate) struct Site {
    /// The kind of NAT.
    pub(crate) kind: &'static str,
    /// The router that translates.
    pub(crate) router: Router,
    /// The machine.
    pub(crate) machine: Device,
}

impl Topology {
    /// Makes all networks.
    pub(crate) async fn build() -> Result<Self> {
        let lab = LabBuilder::default().build().await.context("a lab")?;
        let data_centre = lab.add_router("dc").preset(RouterPreset::Public).build().await?;
        let super_node = lab
            .add_device("super")
            .iface("eth0", data_centre.id())
            .build()
            .await?;
        let developer = lab
            .add_device("developer")
            .iface("eth0", data_centre.id())
            .build()
            .await?;
        let mut callers = Vec::new();
        let mut hosts = Vec::new();
        for (kind, preset) in KINDS {
            callers.push(Site::build(&lab, "caller", kind, preset).await?);
            hosts.push(Site::build(&lab, "host", kind, preset).await?);
        }
        Ok(Self {
            super_node,
            developer,
            callers,
            hosts,
            _lab: lab,
        })
    }
}

impl Site {
    async fn build(lab: &Lab, role: &str, kind: &'static str, preset: RouterPreset) -> Result<Self> {
        let router = lab
            .add_router(&format!("{role}-{kind}-nat"))
            .preset(preset)
            .build()
            .await?;
        let machine = lab
            .add_device(&format!("{role}-{kind}"))
            .iface("eth0", router.id())
            .build()
            .await?;
        Ok(Self {
            kind,
            router,
            machine,
        })
    }

    /// The address that the rest of the world sees.
    pub(crate) fn public_ip(&self) -> Result<IpAddr> {
        Ok(self.router.uplink_ip().context("a router has an uplink")?.into())
    }
}

/// A machine's own address.
pub(crate) fn ip(machine: &Device) -> Result<Ipv4Addr> {
    machine.ip().context("a machine has an address")
}

//! Simulated guests.

use std::os::fd::OwnedFd;
use std::time::Duration;

use async_trait::async_trait;
use banger_api::boot::{BootState, BootView};
use banger_api::handover::{HandedOver, HandoverKind, HandoverState};
use banger_api::vm::Timing;
use banger_api::{ApiError, ErrorCode};

use super::world::World;
use super::{GuestBehavior, Sim};
use crate::devices::Devices;
use crate::drivers::{ClockHistory, Guest, GuestClock, GuestEnd, GuestHealth, GuestReady};
use crate::interrupt::Interrupt;
use crate::meter::GuestUsage;
use crate::plan::{RunPlan, VmPlan};

impl Sim {
    pub(super) fn boot_id(&self, vm: &VmPlan) -> Result<String, ApiError> {
        let shim = self.object("shim", vm).filter(|_| self.object("paused", vm).is_none());
        let shim = shim.ok_or_else(|| {
            let text = format!("the agent of `{}` does not answer", vm.name);
            ApiError::new(ErrorCode::GuestFailed, text)
        })?;
        Ok(format!("00000000-0000-4000-8000-{:012}", shim.parse::<u64>().unwrap_or_default()))
    }
}

/// As for a host with a git identity and without opencode.
fn handed_over(vm: &VmPlan) -> Vec<HandedOver> {
    let entry = |kind, guest: &str, state, detail: Option<&str>| HandedOver {
        kind,
        guest: guest.into(),
        state,
        detail: detail.map(str::to_owned),
    };
    let login = vm.agent_login.iter().map(|login| {
        let guest = format!("/root/{}", login.agent.login());
        entry(login.agent.login_kind(), &guest, HandoverState::Copied, None)
    });
    let always = [
        entry(HandoverKind::GitIdentity, "/root/.gitconfig", HandoverState::Copied, None),
        entry(
            HandoverKind::OpencodeLogin,
            "/root/.local/share/opencode/auth.json",
            HandoverState::Missing,
            Some("`/home/sim/.local/share/opencode/auth.json` does not exist"),
        ),
    ];
    always.into_iter().chain(login).collect()
}

#[async_trait]
impl Guest for Sim {
    async fn boot(
        &self,
        vm: &VmPlan,
        _run: &RunPlan,
        _devices: &Devices,
        interrupt: &Interrupt,
    ) -> Result<String, ApiError> {
        self.make("hello", vm)?;
        if self.behavior(vm) == GuestBehavior::Silent {
            interrupt.raised().await;
        }
        self.boot_id(vm)
    }

    async fn agent(&self, vm: &VmPlan, boot_id: &str, _i: &Interrupt) -> Result<(), ApiError> {
        self.make("agent", vm)?;
        if self.boot_id(vm)? == boot_id {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::GuestFailed, "another boot answers"))
    }

    async fn ready(&self, vm: &VmPlan, _interrupt: &Interrupt) -> Result<GuestReady, ApiError> {
        self.make("ready", vm)?;
        let timeline = vec![Timing { name: "kernel".into(), ms: 1 }];
        Ok(GuestReady { timeline, warnings: Vec::new(), handed_over: handed_over(vm) })
    }

    async fn forget(&self, vm: &VmPlan) {
        let mut inner = self.inner();
        let kinds = ["hello", "agent", "ready"];
        for kind in kinds {
            inner.world.remove(kind, &vm.id);
        }
        (self.sink)(&inner.world, &kinds.map(|kind| World::key(kind, &vm.id)));
    }

    async fn health(&self, vm: &VmPlan) -> Result<GuestHealth, ApiError> {
        Ok(GuestHealth {
            boot_id: self.boot_id(vm)?,
            uptime_ms: 1,
            round_trip_us: 1,
            agent_restarts: 0,
        })
    }

    async fn usage(&self, vm: &VmPlan) -> Result<GuestUsage, ApiError> {
        self.boot_id(vm)?;
        Ok(self.guest_usage(vm).unwrap_or_default())
    }

    async fn boot_progress(&self, vm: &VmPlan, wait: Duration) -> Result<BootView, ApiError> {
        self.boot_id(vm)?;
        if self.behavior(vm) == GuestBehavior::NeverBooted {
            tokio::time::sleep(wait).await;
            return Ok(BootView::booting());
        }
        if self.behavior(vm) == GuestBehavior::PowersOff {
            self.end_vmm(vm, Some(GuestEnd::Poweroff), "the simulated guest powered off");
            return Ok(BootView::booting());
        }
        if let GuestBehavior::Exits(code) = self.behavior(vm) {
            self.end_program(vm, code);
            return Ok(BootView::booting());
        }
        let source = "the host is simulated".into();
        let (state, failed) = (BootState::Running, Vec::new());
        Ok(BootView { state, after_ms: Some(2), source, failed })
    }

    async fn correct_clock(
        &self,
        vm: &VmPlan,
        history: ClockHistory,
    ) -> Result<GuestClock, ApiError> {
        self.boot_id(vm)?;
        self.inner().compared.push((vm.name.to_string(), history));
        match self.behavior(vm) {
            GuestBehavior::Unresponsive => {
                return Err(ApiError::new(ErrorCode::GuestFailed, "the agent does not answer"));
            }
            GuestBehavior::Hanging => std::future::pending().await,
            _ => {}
        }
        // A simulated guest has the host's clock.
        Ok(GuestClock::Right)
    }

    async fn power_off(&self, vm: &VmPlan, _grace: Duration) -> Result<(), ApiError> {
        self.boot_id(vm)?;
        if self.behavior(vm) != GuestBehavior::Stubborn {
            self.end_vmm(vm, Some(GuestEnd::Poweroff), "the simulated guest powered off");
        }
        Ok(())
    }

    async fn connect(&self, vm: &VmPlan) -> Result<OwnedFd, ApiError> {
        (self.connect)(vm)
    }
}

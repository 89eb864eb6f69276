//! Waits of commands for a stage of a start, with the runtime's paused clock.

use std::time::Duration;

use banger_api::ErrorCode;
use banger_api::boot::{BootState, Wait, WaitFor};
use banger_engine::sim::GuestBehavior;
use tokio::time::Instant;

use crate::machine::{DaemonFault, Machine};
use crate::request;

const LIMIT: Duration = Duration::from_secs(60);

fn wait(stage: WaitFor) -> Wait {
    Wait { stage, timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap() }
}

/// A command runs after the time limit in a guest whose init does not finish booting, and not in a
/// VM that is still starting.
#[test]
fn a_wait_ends_at_its_limit() {
    let machine = Machine::default();
    machine.daemon(DaemonFault::None, &[], async |engine, sim| {
        sim.set_behavior("web", GuestBehavior::NeverBooted);
        let accepted = engine.create(request()).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
        let began = Instant::now();
        let (plan, boot) = engine.wait_boot("web", wait(WaitFor::Booted)).await.unwrap();
        assert_eq!((plan.name.as_str(), boot.state), ("web", BootState::Booting));
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
        let began = Instant::now();
        engine.wait_boot("web", wait(WaitFor::Ready)).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 0);
        let delete = banger_api::vm::VmAction::Delete { force: true };
        crate::act(engine, delete).await;

        sim.set_behavior("web", GuestBehavior::Silent);
        let accepted = engine.create(request()).await.unwrap();
        // Its task begins after the answer.
        while engine.show("web").await.is_err() {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        let error = engine.wait_boot("web", wait(WaitFor::Ready)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert_eq!(error.message, "`web` is still starting after 60 s");
        assert!(error.hint().unwrap().contains("`banger vm show web`"), "{error:?}");
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
        let start = accepted.operation.unwrap();
        engine.cancel(&start).await.unwrap();
    });
}

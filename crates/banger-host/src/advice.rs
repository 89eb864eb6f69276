//! Errors of the image or kernel of a VM.

use banger_api::hint::ImageAdvice;
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::plan::VmPlan;
use banger_image::advice::fetch_error_hints;
use banger_image::fetch::FetchError;

/// A failure of the image or kernel that a VM was made from. No other one can replace it, so the
/// hints for images and kernels in general do not apply.
pub fn of_vm(vm: &VmPlan, what: &str, error: &FetchError) -> ApiError {
    let (name, image) = (&vm.name, &vm.boot.image_name);
    let id = if what == "kernel" { vm.boot.kernel.as_str() } else { vm.boot.image.as_str() };
    let text = match what {
        "kernel" => format!("the kernel {id} that `{name}` boots is not usable"),
        _ => format!("the image `{image}` ({id}) that `{name}` was made from is not usable"),
    };
    let restore = match what {
        "kernel" => ImageAdvice::RestoreKernel { vm: name.to_string() },
        _ => ImageAdvice::RestoreImage { vm: name.to_string() },
    };
    let mut failure = ApiError::new(ErrorCode::Corrupt, text).caused_by(error);
    failure.hints = vec![restore.into(), Hint::ask(name, VmAction::Delete { force: false })];
    if matches!(error, FetchError::Damaged { .. }) {
        // Once no VM uses it.
        failure.hints.extend(fetch_error_hints(error));
    }
    failure
}

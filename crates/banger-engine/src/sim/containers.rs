//! Simulated container images.

use banger_api::images::ImageConfig;

/// Images with this in a name are container images without an init.
const CONTAINER: &str = "app";

/// How a container of an image with these names runs; none if it is not a container image.
pub fn config(names: &[String]) -> Option<ImageConfig> {
    names.iter().any(|name| name.contains(CONTAINER)).then(|| ImageConfig {
        entrypoint: vec!["echo".into(), "app".into()],
        cmd: vec!["default".into()],
        env: vec!["APP=1".into()],
        user: Some("root".into()),
        working_dir: Some("/srv".into()),
        exposed_ports: vec!["80/tcp".into()],
        stop_signal: Some("SIGQUIT".into()),
        ..ImageConfig::default()
    })
}

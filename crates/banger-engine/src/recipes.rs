//! Recipes whose images are built in a VM: a base system of a registry, packages of its
//! distribution, and a script.
//!
//! The registry's digests protect the base system, and its package manager checks the signatures of
//! packages with the keys in it.

use std::sync::Arc;

use banger_api::ApiError;
use banger_api::build::ImageBuildRequest;
use banger_api::hint::ImageAdvice;
use banger_api::images::{DEFAULT_IMAGE, Rebuild};
use banger_api::operation::stage;

use crate::engine::Engine;
use crate::fetches::failed;
use crate::ops::{Op, OpProgress};

/// What is built.
pub(crate) enum Making {
    /// As a user asks for.
    Request(ImageBuildRequest),
    /// A recipe.
    Recipe(&'static Recipe, Rebuild),
}

/// Whether the VM of a build stays for a look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Never.
    No,
    /// If the build fails.
    AfterFailure,
}

/// A recipe.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Name of the recipe and of its image.
    pub name: &'static str,
    /// The base system, an image of a registry.
    base: &'static str,
    packages: &'static [&'static str],
    /// Run as root after the packages were installed.
    script: &'static str,
    /// Whether VMs boot the kernel that the packages contain.
    pub kernel: RecipeKernel,
}

/// The kernel of the image of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecipeKernel {
    /// That of the distribution, which is in the image.
    Own,
    /// The default kernel.
    Default,
}

const RECIPES: [Recipe; 3] = [
    Recipe {
        name: "alpine",
        base: "docker.io/library/alpine:3.23",
        packages: &[
            "alpine-base",
            "bash",
            "busybox-openrc",
            "ca-certificates",
            "coreutils",
            "curl",
            "git",
            "grep",
            "iproute2",
            "iputils",
            "less",
            "nano",
            "openrc",
            "openssh",
            "procps-ng",
            "python3",
            "rsync",
            "sudo",
            "tzdata",
            "vim",
            "xz",
        ],
        script: include_str!("build/recipes/alpine.sh"),
        kernel: RecipeKernel::Default,
    },
    Recipe {
        name: "debian-dev",
        base: DEFAULT_IMAGE,
        packages: &[
            "build-essential",
            "ca-certificates",
            "curl",
            "fd-find",
            "git",
            "jq",
            "less",
            "nodejs",
            "npm",
            "openssh-server",
            "pkg-config",
            "procps",
            "python3",
            "python3-pip",
            "python3-venv",
            "ripgrep",
            "rsync",
            "tmux",
            "unzip",
            "vim",
            "xz-utils",
        ],
        script: include_str!("build/recipes/debian-dev.sh"),
        kernel: RecipeKernel::Default,
    },
    Recipe {
        name: "void",
        base: "ghcr.io/void-linux/void-glibc-full:latest",
        packages: &[
            "bash",
            "ca-certificates",
            "curl",
            "git",
            "iproute2",
            "iputils",
            "kmod",
            "less",
            "linux",
            "nano",
            "openssh",
            "procps-ng",
            "python3",
            "rsync",
            "runit-void",
            "sudo",
            "tzdata",
            "vim",
            "xz",
        ],
        script: include_str!("build/recipes/void.sh"),
        kernel: RecipeKernel::Own,
    },
];

/// The recipe of this name.
pub(crate) fn recipe(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name)
}

impl Recipe {
    fn request(&self, rebuild: Rebuild) -> ImageBuildRequest {
        ImageBuildRequest {
            name: self.name.to_owned(),
            from: self.base.to_owned(),
            packages: self.packages.iter().map(ToString::to_string).collect(),
            script: Some(self.script.to_owned()),
            no_cache: rebuild == Rebuild::Always,
            replace: true,
            ..ImageBuildRequest::default()
        }
    }
}

impl Engine {
    /// Builds an image, and removes the VM of the build.
    pub(crate) async fn built(
        self: Arc<Self>,
        op: &Arc<Op>,
        keep: Keep,
        making: Making,
    ) -> Result<String, ApiError> {
        let (builder, of) = (self.clone(), op.clone());
        // In a separate task, so that the VM is deleted even if the build panics.
        let built = tokio::spawn(async move {
            match making {
                Making::Request(request) => {
                    builder.build(&of, &request, RecipeKernel::Default).await
                }
                Making::Recipe(recipe, rebuild) => builder.make_recipe(&of, recipe, rebuild).await,
            }
        });
        let built = built.await.unwrap_or_else(|panic| Err(failed(&panic)));
        self.end_build(&op.id, keep == Keep::AfterFailure, built).await
    }

    /// Makes the image of a recipe; returns its id.
    ///
    /// # Errors
    /// The base system cannot be pulled: the error says how to import one; those of a build.
    pub(crate) async fn make_recipe(
        &self,
        op: &Arc<Op>,
        recipe: &'static Recipe,
        rebuild: Rebuild,
    ) -> Result<String, ApiError> {
        let images = &self.shared.drivers.images;
        let progress = Arc::new(OpProgress::new(op.clone(), stage::PULL_IMAGE));
        if rebuild == Rebuild::Always || self.image(recipe.base).await.is_err() {
            let pulled = images.pull_image(recipe.base, rebuild, progress).await;
            pulled.map_err(|error| {
                let name = recipe.name.to_owned();
                error.with_hint(ImageAdvice::ImportSystem { recipe: name })
            })?;
        }
        self.build(op, &recipe.request(rebuild), recipe.kernel).await
    }
}

//! Images and kernels, and the forms that fetch, make, promote and delete them.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use banger_api::build::{BuildCopy, ImageBuildRequest};
use banger_api::images::{
    ImageCommitRequest, ImageHistoryEntry, ImageKernel, ImagePullRequest, ImageRegisterRequest,
    ImageView, ImportRequest, KernelBuildRequest, KernelImportRequest, KernelView, PullRequest,
    TagRequest,
};
use banger_api::operation::Accepted;
use banger_api::size::human_size;
use banger_api::{ApiError, routes};

use crate::form::{Fields, bad};
use crate::page::{Answer, Chrome, Section, back, render};
use crate::routes::Routes;
use crate::site::{Session, Shared, Site};

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/images", get(list))
        .route("/images/{image}", get(show))
        .route("/images/do/{verb}", post(make))
        .route("/kernels/do/{verb}", post(make_kernel))
        .route("/images/{image}/delete", post(delete))
        .route("/images/{image}/promote", post(promote))
        .route("/images/{image}/tag", post(tag))
        .route("/images/{image}/untag", post(untag))
        .route("/kernels/{kernel}/delete", post(delete_kernel))
}

#[derive(Template)]
#[template(path = "images.html")]
struct ListPage {
    page: Chrome,
    images: Vec<ImageView>,
    kernels: Vec<KernelView>,
    stopped: Vec<String>,
}

impl ListPage {
    fn size(&self, bytes: &u64) -> String {
        human_size(*bytes)
    }
}

async fn list(State(site): Shared, Extension(session): Session) -> Answer {
    let client = &site.client;
    let (images, kernels, vms) = tokio::try_join!(client.images(), client.kernels(), client.vms())?;
    let stopped = vms.into_iter().filter(|vm| vm.state == banger_api::vm::VmState::Stopped);
    render(&ListPage {
        page: Chrome::new(&site, &session, Section::Images),
        images,
        kernels,
        stopped: stopped.map(|vm| vm.name.to_string()).collect(),
    })
}

#[derive(Template)]
#[template(path = "image.html")]
struct ImagePage {
    page: Chrome,
    image: ImageView,
    history: Vec<ImageHistoryEntry>,
    packages: Vec<String>,
}

impl ImagePage {
    fn size(&self, bytes: &u64) -> String {
        human_size(*bytes)
    }

    fn title(&self) -> String {
        match self.image.names.first() {
            Some(name) => name.clone(),
            None => self.image.id.to_string(),
        }
    }
}

async fn show(
    State(site): Shared,
    Extension(session): Session,
    Path(image): Path<String>,
) -> Answer {
    let client = &site.client;
    let view = client.image(&image).await?;
    let history = client.image_history(&image).await?;
    let packages = match view.packages {
        Some(_) => client.image_packages(&image).await?,
        None => Vec::new(),
    };
    let page = Chrome::new(&site, &session, Section::Images);
    render(&ImagePage { page, image: view, history, packages })
}

/// Leads to the operation, or back to the list with the error.
fn follow(site: &Site, session: &Session, result: Result<Accepted, ApiError>) -> Response {
    match result {
        Ok(Accepted { operation: Some(operation), .. }) => {
            Redirect::to(&format!("/operations/{operation}")).into_response()
        }
        Ok(_) => back(site, session, "/images", Ok("There is nothing to do".into())),
        Err(error) => back(site, session, "/images", Err(error)),
    }
}

/// `POST /images/do/{verb}`: pull, import, register, build and commit.
async fn make(
    State(site): Shared,
    session: Session,
    Path(verb): Path<String>,
    fields: Fields,
) -> Answer {
    let result = make_image(&site, &verb, &fields).await;
    Ok(follow(&site, &session, result))
}

async fn make_image(site: &Site, verb: &str, fields: &Fields) -> Result<Accepted, ApiError> {
    let client = &site.client;
    let replace = fields.ticked("replace");
    let name = || fields.required("name", "The name");
    match verb {
        "pull" => {
            let name = fields.required("reference", "The reference")?;
            client.pull_image(&ImagePullRequest { name, refresh: fields.ticked("refresh") }).await
        }
        "import" => {
            let path = path(fields, "path", "The file or folder")?.into();
            client.import_image(&ImportRequest { path, name: name()?, replace }).await
        }
        "register" => {
            let rootfs = path(fields, "path", "The file")?.into();
            client
                .register_image(&ImageRegisterRequest {
                    rootfs,
                    kernel: given_kernel(fields)?,
                    name: name()?,
                    replace,
                })
                .await
        }
        "commit" => {
            let vm = fields.required("vm", "The VM")?;
            client.commit_image(&ImageCommitRequest { vm, name: name()?, replace }).await
        }
        "build" => client.build_image(&build(fields)?).await,
        _ => Err(bad("there is no such form")),
    }
}

/// The kernel of a registered image: the default one, the image's own, or a file of the host.
fn given_kernel(fields: &Fields) -> Result<Option<ImageKernel>, ApiError> {
    let modules = match fields.get("modules") {
        Some(_) => Some(path(fields, "modules", "The folder of modules")?.into()),
        None => None,
    };
    match fields.get("kernel") {
        None | Some("image") if modules.is_some() => {
            Err(bad("modules go with the file of a kernel"))
        }
        None => Ok(None),
        Some("image") => Ok(Some(ImageKernel::Contained)),
        Some(_) => {
            let path = path(fields, "kernel", "The kernel")?.into();
            Ok(Some(ImageKernel::Files { path, modules }))
        }
    }
}

/// An absolute path of the host.
fn path(fields: &Fields, name: &str, label: &str) -> Result<String, ApiError> {
    let path = fields.required(name, label)?;
    match path.starts_with('/') {
        true => Ok(path),
        false => Err(bad(format!("`{path}` is not an absolute path"))),
    }
}

fn build(fields: &Fields) -> Result<ImageBuildRequest, ApiError> {
    let copy = |line: &str| {
        let (source, target) = line.trim().split_once(':').ok_or_else(|| {
            bad(format!("`{}` is not SOURCE:TARGET, a path of the host and one of the image", line))
        })?;
        Ok::<_, ApiError>(BuildCopy { source: source.into(), target: target.into() })
    };
    let copies = fields.raw("copies").lines().filter(|line| !line.trim().is_empty()).map(copy);
    let script = fields.raw("script");
    Ok(ImageBuildRequest {
        name: fields.required("name", "The name")?,
        from: fields.required("from", "The base image")?,
        copies: copies.collect::<Result<_, _>>()?,
        packages: fields.words("packages").map(str::to_owned).collect(),
        script: (!script.trim().is_empty()).then(|| script.to_owned()),
        root_bytes: fields.size("root", "Root disk")?,
        no_cache: fields.ticked("no_cache"),
        keep: fields.ticked("keep"),
        replace: fields.ticked("replace"),
    })
}

/// `POST /kernels/do/{verb}`: pull, import and build.
async fn make_kernel(
    State(site): Shared,
    session: Session,
    Path(verb): Path<String>,
    fields: Fields,
) -> Answer {
    let result = kernel(&site, &verb, &fields).await;
    Ok(follow(&site, &session, result))
}

async fn kernel(site: &Site, verb: &str, fields: &Fields) -> Result<Accepted, ApiError> {
    let client = &site.client;
    let name = fields.required("name", "The name")?;
    match verb {
        "pull" => client.pull_kernel(&PullRequest { name }).await,
        "build" => client.build_kernel(&KernelBuildRequest { name }).await,
        "import" => {
            let modules = match fields.get("modules") {
                Some(_) => Some(path(fields, "modules", "The folder of modules")?.into()),
                None => None,
            };
            let path = path(fields, "path", "The file")?.into();
            let replace = fields.ticked("replace");
            client.import_kernel(&KernelImportRequest { path, modules, name, replace }).await
        }
        _ => Err(bad("there is no such form")),
    }
}

#[derive(Template)]
#[template(path = "confirm_delete.html")]
struct ConfirmPage {
    page: Chrome,
    to: String,
    what: &'static str,
    name: String,
}

/// Asks, or deletes an image or kernel.
async fn delete(
    State(site): Shared,
    session: Session,
    Path(image): Path<String>,
    fields: Fields,
) -> Answer {
    if !fields.ticked("confirmed") {
        return ask(&site, &session, "image", "images", &image);
    }
    let result = site.client.delete_image(&image).await;
    let result =
        result.map(|deleted| format!("Deleted {image}, {} freed", human_size(deleted.freed_bytes)));
    Ok(back(&site, &session, "/images", result))
}

async fn delete_kernel(
    State(site): Shared,
    session: Session,
    Path(kernel): Path<String>,
    fields: Fields,
) -> Answer {
    if !fields.ticked("confirmed") {
        return ask(&site, &session, "kernel", "kernels", &kernel);
    }
    let result = site.client.delete_kernel(&kernel).await;
    let result = result
        .map(|deleted| format!("Deleted {kernel}, {} freed", human_size(deleted.freed_bytes)));
    Ok(back(&site, &session, "/images", result))
}

fn ask(site: &Site, session: &Session, what: &'static str, plural: &str, name: &str) -> Answer {
    let to = format!("/{plural}/{}/delete", routes::encode(name));
    let page = Chrome::new(site, session, Section::Images);
    render(&ConfirmPage { page, to, what, name: name.to_owned() })
}

async fn promote(State(site): Shared, session: Session, Path(image): Path<String>) -> Answer {
    let result = site.client.promote_image(&image).await;
    Ok(follow(&site, &session, result))
}

async fn tag(
    State(site): Shared,
    session: Session,
    Path(image): Path<String>,
    fields: Fields,
) -> Answer {
    let result = match fields.required("name", "The name") {
        Ok(name) => {
            let replace = fields.ticked("replace");
            site.client.tag_image(&image, &TagRequest { name, replace }).await
        }
        Err(error) => Err(error),
    };
    let result = result.map(|_| "The image has one more name".to_owned());
    Ok(back(&site, &session, &here(&image), result))
}

async fn untag(
    State(site): Shared,
    session: Session,
    Path(image): Path<String>,
    fields: Fields,
) -> Answer {
    let result = match fields.required("name", "The name") {
        Ok(name) => site.client.untag_image(&name).await,
        Err(error) => Err(error),
    };
    let result = result.map(|_| "The name was removed".to_owned());
    Ok(back(&site, &session, &here(&image), result))
}

fn here(image: &str) -> String {
    format!("/images/{}", routes::encode(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "<img src=x onerror=alert(1)><style>*{}</style>\"'<script>";

    fn image() -> ImageView {
        let value = serde_json::json!({
            "id": "0123456789abcdef", "names": [EVIL], "source": EVIL, "system": EVIL,
            "packages": 1, "virtual_bytes": 1, "used_bytes": 1, "init": EVIL, "created_at": EVIL,
            "fingerprint": EVIL, "registered": EVIL, "used_by": [EVIL],
            "config": {"labels": {EVIL: EVIL}},
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_registered_image_has_the_kernel_that_the_form_names() {
        let kernel = |form: &str| given_kernel(&Fields::parse(form.as_bytes()));
        assert_eq!(kernel("kernel=&modules=").unwrap(), None);
        assert_eq!(kernel("kernel=+image+").unwrap(), Some(ImageKernel::Contained));
        let files = |modules: Option<&str>| {
            let modules = modules.map(Into::into);
            Some(ImageKernel::Files { path: "/srv/vmlinuz".into(), modules })
        };
        assert_eq!(kernel("kernel=/srv/vmlinuz").unwrap(), files(None));
        let both = "kernel=/srv/vmlinuz&modules=/srv/modules";
        assert_eq!(kernel(both).unwrap(), files(Some("/srv/modules")));
        for (form, because) in [
            ("kernel=vmlinuz", "`vmlinuz` is not an absolute path"),
            ("kernel=/srv/vmlinuz&modules=m", "`m` is not an absolute path"),
            ("kernel=image&modules=/m", "modules go with the file of a kernel"),
            ("modules=/m", "modules go with the file of a kernel"),
        ] {
            assert_eq!(kernel(form).unwrap_err().message, because, "{form}");
        }
    }

    #[test]
    fn text_of_an_image_is_no_markup() {
        let page = || Chrome { csrf: String::new(), section: Section::Images, flash: None };
        let history = serde_json::json!([{"id": "0123456789abcdef", "names": [EVIL]}]);
        let one = ImagePage {
            page: page(),
            image: image(),
            history: serde_json::from_value(history).unwrap(),
            packages: vec![EVIL.into()],
        };
        let list = ListPage {
            page: page(),
            images: vec![image()],
            kernels: Vec::new(),
            stopped: vec![EVIL.into()],
        };
        for html in [one.render().unwrap(), list.render().unwrap()] {
            assert!(html.contains("&#60;img src=x"), "{html}");
            // What the page itself has of these has other attributes.
            for markup in ["<img", "<style", "<script>", "onerror=alert(1)>"] {
                assert!(!html.contains(markup), "{markup}: {html}");
            }
        }
    }
}

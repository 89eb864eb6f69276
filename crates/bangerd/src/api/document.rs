//! Parts of the OpenAPI document that no type of the API has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::schema::{
    AdditionalProperties, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, OpenApi, RefOr, Schema};
use utoipa::{Modify, PartialSchema, ToSchema};

/// One event of a stream (WHATWG HTML, section 9.2 "Server-sent events"), as a client receives it.
pub enum ServerSentEvent {}

impl PartialSchema for ServerSentEvent {
    fn schema() -> RefOr<Schema> {
        let text = |description| {
            ObjectBuilder::new().schema_type(Type::String).description(Some(description))
        };
        let data = text("JSON; the description of the response names its schema")
            .content_media_type("application/json");
        ObjectBuilder::new()
            .property("id", text("value of `Last-Event-ID` that resumes after this event"))
            .property("data", data)
            .required("id")
            .required("data")
            .into()
    }
}

impl ToSchema for ServerSentEvent {
    fn name() -> Cow<'static, str> {
        "ServerSentEvent".into()
    }
}

/// Bytes of any content.
pub enum Binary {}

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {
    fn name() -> Cow<'static, str> {
        "Binary".into()
    }
}

/// Result of an upload: `Unpacked` of the agent's protocol, whose crate has no schemas.
pub enum Unpacked {}

impl PartialSchema for Unpacked {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .property("entries", count("number of entries"))
            .property("bytes", count("bytes of content, without holes"))
            .property("left_out", count("number of devices that were left out"))
            .required("entries")
            .required("bytes")
            .into()
    }
}

impl ToSchema for Unpacked {
    fn name() -> Cow<'static, str> {
        "Unpacked".into()
    }
}

/// Result of a start without a client: `Detached` of the agent's protocol.
pub enum Detached {}

impl PartialSchema for Detached {
    fn schema() -> RefOr<Schema> {
        let text = |description| {
            ObjectBuilder::new().schema_type(Type::String).description(Some(description))
        };
        let log = text("file in the guest with its output, if it runs and has one")
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]));
        let kind = text("what happened").enum_values(Some(["running", "not_started"]));
        ObjectBuilder::new()
            .property("type", kind)
            .property("pid", count("process id in the guest, if it runs"))
            .property("log", log)
            .property("code", count("exit code of a shell, if it was not started: 126 or 127"))
            .property("message", text("why it was not started"))
            .required("type")
            .into()
    }
}

impl ToSchema for Detached {
    fn name() -> Cow<'static, str> {
        "Detached".into()
    }
}

fn count(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).description(Some(description)).minimum(Some(0))
}

/// Requests whose variants are objects with one known property; serde refuses any other one.
const VARIANTS: [&str; 3] = ["SubjectRef", "VmAction", "ImageKernel"];

/// Adds `additionalProperties: false` to [`VARIANTS`], which the generator cannot express, and
/// opens strict objects where others include them.
pub struct Strict;

impl Modify for Strict {
    fn modify(&self, document: &mut OpenApi) {
        let Some(components) = &mut document.components else { return };
        for name in VARIANTS {
            let Some(RefOr::T(Schema::OneOf(one_of))) = components.schemas.get_mut(name) else {
                continue;
            };
            one_of.items.iter_mut().for_each(close);
        }
        let all = components.schemas.clone();
        for schema in components.schemas.values_mut() {
            let RefOr::T(Schema::AllOf(all_of)) = schema else { continue };
            all_of.items.iter_mut().for_each(|item| include(item, &all));
        }
    }
}

/// Puts an object in place of a reference to one without further properties: `allOf` applies each
/// schema to the whole value, so the properties beside it would be refused (JSON Schema 2020-12,
/// core, section 10.3.2.3).
fn include(item: &mut RefOr<Schema>, all: &BTreeMap<String, RefOr<Schema>>) {
    let RefOr::Ref(reference) = item else { return };
    let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
    let Some(RefOr::T(Schema::Object(object))) = all.get(name) else { return };
    if object.additional_properties.is_some() {
        let mut object = object.clone();
        object.additional_properties = None;
        *item = RefOr::T(Schema::Object(object));
    }
}

/// Applies to the object and to those in it.
fn close(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    if object.schema_type == Type::Object.into() {
        let none = AdditionalProperties::FreeForm(false);
        object.additional_properties = Some(Box::new(none));
    }
    object.properties.values_mut().for_each(close);
}

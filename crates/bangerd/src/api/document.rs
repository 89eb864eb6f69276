//! Parts of the OpenAPI document that no type of the API has.

use std::borrow::Cow;

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaFormat, Type};
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

/// Requests whose variants are objects with one known property; serde refuses any other one.
const VARIANTS: [&str; 2] = ["SubjectRef", "VmAction"];

/// Adds `additionalProperties: false` to [`VARIANTS`], which the generator cannot express.
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

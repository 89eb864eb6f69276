//! Results of tools: a JSON document, and errors with code, causes and remedy.

use banger_api::ApiError;
use banger_client::text::{json, line};
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

/// The result of a tool that succeeded.
pub fn success(value: Value) -> CallToolResult {
    let mut result = CallToolResult::structured(value);
    plain(&mut result);
    result
}

/// An error as a result: clients show those to the model, and errors of the protocol to nobody.
pub fn error(error: &ApiError) -> CallToolResult {
    let causes: Vec<String> = error.causes.iter().map(|cause| line(cause)).collect();
    let mut value = json!({ "code": error.code, "message": line(&error.message) });
    if let Some(object) = value.as_object_mut() {
        if !causes.is_empty() {
            object.insert("causes".into(), json!(causes));
        }
        if let Some(remedy) = error.hint() {
            object.insert("remedy".into(), json!(line(&remedy)));
        }
        if let Some(operation) = &error.operation {
            object.insert("operation".into(), json!(operation));
        }
    }
    let mut result = CallToolResult::structured_error(json!({ "error": value }));
    plain(&mut result);
    result
}

/// Escapes in the text of the document what JSON itself leaves: controls above ASCII.
fn plain(result: &mut CallToolResult) {
    if let Some(value) = &result.structured_content {
        result.content = vec![ContentBlock::text(json(&value.to_string()))];
    }
}

#[cfg(test)]
mod tests {
    use banger_api::{ErrorCode, Hint};

    use super::*;

    #[test]
    fn an_error_has_code_cause_and_remedy() {
        let failure = ApiError::new(ErrorCode::NotFound, "there is no VM `\u{1b}x`")
            .caused_by(&std::io::Error::other("a\u{9b}b"))
            .with_hint(Hint::show("web"));
        let result = error(&failure);
        assert_eq!(result.is_error, Some(true));
        let value = &result.structured_content.unwrap()["error"];
        assert_eq!(value["code"], "not_found");
        assert_eq!(value["message"], "there is no VM `\\u{1b}x`");
        assert_eq!(value["causes"], json!(["a\\u{9b}b"]));
        assert!(value["remedy"].as_str().unwrap().contains("banger vm show web"), "{value}");
    }
}

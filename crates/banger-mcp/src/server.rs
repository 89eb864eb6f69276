//! The server: which tools there are for this client, and their calls.

use std::sync::Arc;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::Client;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;

use crate::arguments::{self, parse};
use crate::folders::Folders;
use crate::progress::Progress;
use crate::session::Session;
use crate::tools::Tool;
use crate::{Options, answer};

/// Instructions for the model.
const INSTRUCTIONS: &str = "Each machine is a Linux system of its own, with root, on this host. \
    Create one, run commands in it with `exec`, and move files with `read_file`, `write_file`, \
    `upload` and `download`. Machines end with this session unless they are kept. An error names \
    its cause and a remedy.";

/// Key of the label with the id of the session.
pub const SESSION_LABEL: &str = "mcp-session";

/// The server of one client.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    client: Client,
    options: Options,
    session: Session,
    /// Id of the session, in a label of its machines.
    id: String,
}

/// A call in progress.
pub struct Call<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// Machines of the session.
    pub session: &'a Session,
    /// Id of the session.
    pub session_id: &'a str,
    /// Folders of this host for copies.
    pub folders: &'a Folders,
    /// The request.
    pub context: &'a RequestContext<RoleServer>,
    /// Its progress.
    pub progress: Progress,
}

impl Server {
    /// A server without machines.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(client: Client, options: Options) -> Result<Self, ApiError> {
        let mut id = [0; 6];
        getrandom::fill(&mut id).map_err(|error| {
            ApiError::new(ErrorCode::Internal, "no random numbers").caused_by(&error)
        })?;
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(Arc::new(Inner { client, options, session: Session::default(), id })))
    }

    /// Deletes the machines of the session.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn end(&self) -> Result<(), ApiError> {
        self.0.session.end(&self.0.client).await
    }

    async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<Value, ApiError> {
        let tool: Tool = request.name.parse()?;
        if !self.0.options.tools.contains(&tool) {
            let text = format!("this server does not offer the tool `{tool}`");
            let hint = "it was started with `--read-only` or `--tools`";
            return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(hint)));
        }
        let token = context.meta.get_progress_token();
        // Each call is a trace of its own: a session lasts for hours.
        let client = self.0.client.in_new_trace();
        let mut call = Call {
            client: &client,
            session: &self.0.session,
            session_id: &self.0.id,
            folders: &self.0.options.folders,
            context,
            progress: Progress::new(context.peer.clone(), token),
        };
        let given = request.arguments;
        match tool {
            Tool::List => call.list(parse(given)?).await,
            Tool::Show => call.show(&parse::<arguments::Machine>(given)?.vm).await,
            Tool::Create => call.create(parse(given)?).await,
            Tool::Start => call.start(&parse::<arguments::Machine>(given)?.vm).await,
            Tool::Stop => call.stop(&parse::<arguments::Machine>(given)?.vm).await,
            Tool::Run => call.run(parse(given)?).await,
            Tool::Exec => call.exec(parse(given)?).await,
            Tool::ReadFile => call.read_file(parse(given)?).await,
            Tool::WriteFile => call.write_file(parse(given)?).await,
            Tool::ListFiles => call.list_files(parse(given)?).await,
            Tool::Upload => call.upload(parse(given)?).await,
            Tool::Download => call.download(parse(given)?).await,
            Tool::WorkspaceStatus => {
                call.workspace_status(&parse::<arguments::Machine>(given)?.vm).await
            }
            Tool::WorkspaceDiff => call.workspace_diff(parse(given)?).await,
            Tool::WorkspacePull => call.workspace_pull(parse(given)?).await,
            Tool::Ports => call.ports(&parse::<arguments::Machine>(given)?.vm).await,
            Tool::Publish => call.publish(parse(given)?).await,
            Tool::Logs => call.logs(parse(given)?).await,
            Tool::Delete => call.delete(parse(given)?).await,
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new("banger", self.0.options.version);
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self.0.options.tools.iter().map(|tool| tool.describe()).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let result: CallToolResult = match self.call(request, &context).await {
            Ok(value) => answer::success(value),
            Err(error) => answer::error(&error),
        };
        Ok(result.into())
    }
}

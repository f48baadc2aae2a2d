//! A small MCP server by the official SDK, for the tests of [`openclaw_agent::mcp`].
//!
//! ```text
//! mcp_server stdio          speaks on standard input and output
//! mcp_server http           listens on loopback and prints its URL; wants the header `authorization: Bearer good`
//! mcp_server guard CMD…     runs CMD as its guard
//! ```

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt as _,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
        ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};

#[derive(Clone, Default)]
struct Server {
    grown: Arc<AtomicBool>,
}

fn object(value: Value) -> Arc<serde_json::Map<String, Value>> {
    Arc::new(value.as_object().cloned().unwrap_or_default())
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let any = || object(json!({"type": "object", "properties": {"text": {"type": "string"}}}));
        let mut result = ListToolsResult::default();
        // Two pages.
        if page.and_then(|page| page.cursor).is_none() {
            let echo = Tool::new("echo", "Says it again.", any());
            result.tools = vec![
                echo.with_annotations(ToolAnnotations::new().read_only(true)),
                Tool::new("env", "Its variables.", any()),
            ];
            result.next_cursor = Some("2".to_owned());
        } else {
            let names = ["slow", "grow", "fail", "refuse", "picture", "die", "hidden"];
            result.tools = names.map(|name| Tool::new(name, "For a test.", any())).to_vec();
            if self.grown.load(Ordering::SeqCst) {
                result.tools.push(Tool::new("new tool", "Was not there before.", any()));
            }
        }
        Ok(result)
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = |text: String| CallToolResult::success(vec![ContentBlock::text(text)]).into();
        Ok(match &*call.name {
            "echo" => text(call.arguments.and_then(|a| Some(a.get("text")?.as_str()?.to_owned())).unwrap_or_default()),
            "env" => {
                let mut names: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
                names.sort();
                text(names.join("\n"))
            }
            "slow" => {
                if let Some(token) = context.meta.get_progress_token() {
                    let progress = ProgressNotificationParam::new(token, 1.0).with_message("begun");
                    let _ = context.peer.notify_progress(progress).await;
                }
                context.ct.cancelled().await;
                if let Ok(path) = std::env::var("CANCELLED_FILE") {
                    let _ = std::fs::write(path, "cancelled");
                }
                text("too late".to_owned())
            }
            "grow" => {
                self.grown.store(true, Ordering::SeqCst);
                let _ = context.peer.notify_tool_list_changed().await;
                text("grown".to_owned())
            }
            "fail" => CallToolResult::error(vec![ContentBlock::text("it did not work")]).into(),
            "refuse" => return Err(ErrorData::invalid_params("that is refused", None)),
            "picture" => CallToolResult::success(vec![ContentBlock::image("iVBORw==", "image/png")]).into(),
            _ => {
                eprintln!("I die now");
                std::process::exit(3)
            }
        })
    }
}

#[tokio::main]
async fn serve(http: bool) -> Option<()> {
    if !http {
        let running = Server::default().serve(rmcp::transport::stdio()).await.ok()?;
        // One that does not end when its input does.
        if std::env::var_os("STUBBORN").is_some() {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        running.waiting().await.ok()?;
        return Some(());
    }
    let manager = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Server::default()), manager, StreamableHttpServerConfig::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.ok()?;
    println!("http://{}/mcp", listener.local_addr().ok()?);
    loop {
        let (socket, _) = listener.accept().await.ok()?;
        let service = service.clone();
        let serve = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let service = service.clone();
            async move {
                let known = request.headers().get("authorization").is_some_and(|value| value == "Bearer good");
                let mut response = service.handle(request).await;
                if !known {
                    *response.status_mut() = hyper::StatusCode::UNAUTHORIZED;
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let io = hyper_util::rt::TokioIo::new(socket);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, serve));
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mode = arguments.next().unwrap_or_default();
    if mode == "guard" {
        return openclaw_agent::mcp::guard(&arguments.collect::<Vec<_>>()).into();
    }
    if serve(mode == "http").is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

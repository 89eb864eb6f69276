"""A model for tests of agents: it asks once for a shell command, then repeats the result.

usage: fake_model.py COMMAND [LOG]

Prints its port. Speaks the Messages API of Anthropic, and the Responses and Chat Completions APIs of OpenAI, as far as
Claude Code, Codex and opencode use them. LOG gets the name of the tool and its result, one JSON object in each line.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMAND = sys.argv[1]
LOG = sys.argv[2] if len(sys.argv) > 2 else None
SHELLS = ("Bash", "bash", "shell", "shell_command", "exec_command", "local_shell")


def log(**entry):
    if LOG:
        with open(LOG, "a") as file:
            file.write(json.dumps(entry) + "\n")


def text_of(content):
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part.get("text", "")) for part in content if isinstance(part, dict))
    return json.dumps(content)


def shell_of(tools):
    for tool in tools or []:
        name = tool.get("name") or tool.get("function", {}).get("name") or tool.get("type")
        if name in SHELLS:
            schema = tool.get("input_schema") or tool.get("parameters")
            schema = schema or tool.get("function", {}).get("parameters") or {}
            return name, schema.get("properties", {})
    return None, {}


def arguments(properties):
    if "cmd" in properties:
        return {"cmd": COMMAND}
    if properties.get("command", {}).get("type") == "array":
        return {"command": ["bash", "-lc", COMMAND]}
    given = {"command": COMMAND}
    if "description" in properties:
        given["description"] = "a test"
    return given


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        self.answer_json({"object": "list", "data": [], "models": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = self.path.split("?")[0]
        if path.endswith("/count_tokens"):
            self.answer_json({"input_tokens": 1})
        elif path.endswith("/messages"):
            self.anthropic(body)
        elif path.endswith("/responses"):
            self.openai(body)
        elif path.endswith("/chat/completions"):
            self.chat(body)
        else:
            self.answer_json({})

    def answer_json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for name, data in events:
            head = f"event: {name}\n" if name else ""
            text = data if isinstance(data, str) else json.dumps(data)
            self.wfile.write(f"{head}data: {text}\n\n".encode())

    def anthropic(self, body):
        result = None
        for message in body.get("messages", []):
            for part in message["content"] if isinstance(message["content"], list) else []:
                if part.get("type") == "tool_result":
                    result = part
        name, properties = shell_of(body.get("tools"))
        if result is not None:
            said = text_of(result.get("content"))
            log(result=said, is_error=bool(result.get("is_error")))
            block, stop = {"type": "text", "text": f"result: {said}"}, "end_turn"
        elif name:
            log(tool=name)
            block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments(properties)}
            stop = "tool_use"
        else:
            block, stop = {"type": "text", "text": "a test"}, "end_turn"
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model"),
            "content": [], "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        if not body.get("stream"):
            self.answer_json({**message, "content": [block], "stop_reason": stop})
            return
        if block["type"] == "text":
            begun, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            begun = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events = [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": begun},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
             "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ]
        self.stream((event["type"], event) for event in events)

    def openai(self, body):
        outputs = [i for i in body.get("input", []) if str(i.get("type", "")).endswith("call_output")]
        name, properties = shell_of(body.get("tools"))
        if outputs:
            said = text_of(outputs[-1].get("output"))
            log(result=said)
            content = [{"type": "output_text", "text": f"result: {said}", "annotations": []}]
            item = {"type": "message", "id": "m_1", "role": "assistant", "status": "completed",
                    "content": content}
        elif name:
            log(tool=name)
            item = {"type": "function_call", "id": "f_1", "call_id": "call_1", "name": name,
                    "arguments": json.dumps(arguments(properties)), "status": "completed"}
        else:
            log(tools=[t.get("name") or t.get("type") for t in body.get("tools", [])])
            content = [{"type": "output_text", "text": "no shell", "annotations": []}]
            item = {"type": "message", "id": "m_1", "role": "assistant", "status": "completed",
                    "content": content}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
                 "input_tokens_details": {"cached_tokens": 0},
                 "output_tokens_details": {"reasoning_tokens": 0}}
        answer = {"id": "resp_1", "object": "response", "status": "completed", "output": [item],
                  "model": body.get("model"), "usage": usage}
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        events = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": answer},
        ]
        self.stream((event["type"], event) for event in events)

    def chat(self, body):
        results = [m for m in body.get("messages", []) if m.get("role") == "tool"]
        name, properties = shell_of(body.get("tools"))
        if results:
            said = text_of(results[-1].get("content"))
            log(result=said)
            delta, reason = {"role": "assistant", "content": f"result: {said}"}, "stop"
        elif name:
            log(tool=name)
            call = {"index": 0, "id": "call_1", "type": "function", "function": {
                "name": name, "arguments": json.dumps(arguments(properties))}}
            delta, reason = {"role": "assistant", "tool_calls": [call]}, "tool_calls"
        else:
            delta, reason = {"role": "assistant", "content": "a test"}, "stop"
        chunk = {"id": "c_1", "object": "chat.completion.chunk", "created": 0, "model": body.get("model")}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.stream([
            (None, {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}),
            (None, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}],
                    "usage": usage}),
            (None, "[DONE]"),
        ])


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
print(server.server_port, flush=True)
server.serve_forever()

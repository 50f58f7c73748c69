"""A chat template in Qwen's style, and the prompts that a server and a training render with it."""

import jinja2
import orjson

TEMPLATE = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
_TEMPLATE = jinja2.Environment(autoescape=False).from_string(TEMPLATE)


def render(messages, context):
    """The prompt of the next answer. `arguments` must be objects, as templates take them."""
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
    options = {"add_generation_prompt": True, **context.get("chat_template_kwargs", {})}
    return _TEMPLATE.render(messages=messages, tools=context.get("tools"), **options)


def rendered_by_a_server(body):
    """Prepare a request as vLLM does: reasoning under either key, arguments parsed, effort passed to the template."""
    messages = []
    for message in body["messages"]:
        thoughts = message.get("reasoning") or message.get("reasoning_content")
        messages.append(_opened(message) | ({"reasoning_content": thoughts} if thoughts else {}))
    arguments = dict(body.get("chat_template_kwargs") or {})
    if effort := body.get("reasoning_effort"):
        arguments = {"enable_thinking": effort != "none", **arguments, "reasoning_effort": effort}
    return render(messages, {"tools": body.get("tools"), "chat_template_kwargs": arguments})


def rendered_for_training(row, before):
    """The context of the answer at `before` in a journal's row."""
    messages = [_opened(message) for message in row["messages"][:before]]
    if row["metadata"].get("reasoning_dropped"):
        messages = [{key: message[key] for key in message if key != "reasoning_content"} for message in messages]
    return render(messages, row)


def answers(row):
    """Where a row's messages are the model's."""
    return [at for at, message in enumerate(row["messages"]) if message["role"] == "assistant"]


def _opened(message):
    if not message.get("tool_calls"):
        return message
    sent = message.get("extra", {}).get("sent_arguments") or [
        call["function"]["arguments"] for call in message["tool_calls"]
    ]
    calls = [
        call | {"function": call["function"] | {"arguments": orjson.loads(text)}}
        for call, text in zip(message["tool_calls"], sent, strict=True)
    ]
    return message | {"tool_calls": calls}

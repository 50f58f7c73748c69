"""The columns of the table of rollouts that a user's expression may use, with the types of `corpus.table.SCHEMA`."""

SQL_COLUMNS = (
    "number", "length", "instance_id", "sample_id", "reward", "success", "claimed_success", "status", "error_type",
    "answer_error", "speedup", "exit_status", "finish_reason", "truncated", "marked", "model_calls", "latency_s",
    "prompt_tokens", "completion_tokens", "tokens", "messages", "turns", "empty", "reasoning_only", "unanswered_calls",
    "stray_results",
)  # fmt: skip

"""Exported rows can be trained on: from files and card to `datasets` to one step of TRL, with a tiny model."""

import pytest
from datasets import load_dataset

from rollmill.exports.card import write_card
from rollmill.exports.preferences import export_preferences
from rollmill.exports.sft import TokenBudget, export_sft
from rollmill.exports.splitting import Split
from tests.exports.sample_corpus import InMemoryCorpus, rollout

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RECORDS = [rollout(f"p{number // 2}", number % 2, float(number % 2), answer=f"a{number}") for number in range(12)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]
    built = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *letters])}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", eos_token="<eos>", chat_template=TEMPLATE)


@pytest.fixture
def model(tokenizer, tmp_path):
    """From a folder, where the DPO trainer looks for the reference model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "start")
    return LlamaForCausalLM.from_pretrained(tmp_path / "start")


def arguments(tmp_path):
    return {
        "output_dir": str(tmp_path / "model"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_length": 128,
    }


def exported_rows(tmp_path, export, **options):
    """The train split of an export, loaded by way of its card."""
    folder, corpus = tmp_path / "data", InMemoryCorpus(RECORDS)
    exported = export(folder / "rows.jsonl", corpus, corpus.table, split=Split(0.3), **options)
    write_card(exported, corpus=corpus)
    rows = load_dataset(str(folder), "rows", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == exported.rows["train"]
    return rows


def test_the_token_budget_counts_with_the_chat_template(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    corpus = InMemoryCorpus([rollout(answer="a"), rollout(sample=1, answer="a" * 40)])
    length = len("s" + "q of p0" + "a") + 3 + 3  # each message has its role's token before it and <eos> behind it
    for most, dropped in ((length, [1]), (length - 1, [0, 1])):
        budget = TokenBudget(str(tmp_path / "tokenizer"), most)
        exported = export_sft(tmp_path / "rows.jsonl", corpus, corpus.table, budget=budget)
        assert exported.dropped["row"].to_list() == dropped
        assert exported.reasons == {"over_token_budget": len(dropped)}


@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
def test_one_step_of_sft(tmp_path, tokenizer, model, form):
    from trl import SFTConfig, SFTTrainer

    rows = exported_rows(tmp_path, export_sft, format=form)
    trainer = SFTTrainer(
        model=model, args=SFTConfig(**arguments(tmp_path)), train_dataset=rows, processing_class=tokenizer
    )
    assert trainer.train().training_loss > 0
    assert "a" in tokenizer.decode(trainer.train_dataset[0]["input_ids"])


def test_one_step_of_dpo(tmp_path, tokenizer, model):
    from trl import DPOConfig, DPOTrainer

    rows = exported_rows(tmp_path, export_preferences)
    trainer = DPOTrainer(
        model=model, args=DPOConfig(**arguments(tmp_path)), train_dataset=rows, processing_class=tokenizer
    )
    assert trainer.train().training_loss > 0


def test_trl_puts_images_where_they_were_shown(tmp_path):
    from trl.data_utils import prepare_multimodal_messages

    parts = [{"type": "text", "text": "a"}, {"type": "image", "image": "x.png"}, {"type": "image", "image": "y.png"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "b"}]
    corpus = InMemoryCorpus([{"instance_id": "p", "sample_id": 0, "messages": messages}], tmp_path)
    exported = export_sft(tmp_path / "sft.jsonl", corpus, corpus.table)
    (row,) = load_dataset("json", data_files=str(exported.files["train"]), cache_dir=str(tmp_path / "c"))["train"]
    messages = [
        {**item, "content": [{key: part[key] for key in part if part[key] is not None} for part in item["content"]]}
        for item in row["messages"]
    ]
    prepared = prepare_multimodal_messages(messages, images=row["images"])
    shown = [part["image"] for part in prepared[0]["content"] if part["type"] == "image"]
    assert shown == ["x.png", "y.png"]

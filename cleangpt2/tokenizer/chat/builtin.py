"""The formats that need no file: plain, alpaca and chatml, as Jinja programs.

They are written as transformers runs them (``{% generation %}`` stands around what a model is to
learn), because this very text goes into ``tokenizer_config.json`` and every other library renders
it from there. A ``-`` beside a bracket swallows the white space of the layout.
"""

# Texts as they are, and the end token after each answer. Where the prompts of a data set hold
# their own layout, as `prompt` and `completion` do, nothing may be added to them.
PLAIN = """\
{%- for message in messages -%}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}
            {{- message['content'] + eos_token -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- message['content'] -}}
    {%- endif -%}
    {%- if message['role'] == 'system' -%}{{- '\\n\\n' -}}{%- endif -%}
{%- endfor -%}
"""

# The two texts of Stanford Alpaca (Taori et al., 2023), with and without an input; the answer
# follows the colon at once. Alpaca knows one turn and no system message: here later turns repeat
# the instruction's block after a blank line, and a system message takes the place of the first
# sentence.
ALPACA = """\
{%- for message in messages -%}
    {%- if not loop.first and message['role'] != 'assistant' -%}{{- '\\n\\n' -}}{%- endif -%}
    {%- if message['role'] == 'system' -%}
        {{- message['content'] -}}
    {%- elif message['role'] == 'user' -%}
        {%- if loop.first and message['input'] -%}
            {{- 'Below is an instruction that describes a task, paired with an input that '
             + 'provides further context. Write a response that appropriately completes the '
             + 'request.\\n\\n' -}}
        {%- elif loop.first -%}
            {{- 'Below is an instruction that describes a task. Write a response that '
             + 'appropriately completes the request.\\n\\n' -}}
        {%- endif -%}
        {{- '### Instruction:\\n' + message['content'] -}}
        {%- if message['input'] -%}{{- '\\n\\n### Input:\\n' + message['input'] -}}{%- endif -%}
    {%- else -%}
        {%- if not loop.first -%}{{- '\\n\\n' -}}{%- endif -%}
        {{- '### Response:' -}}
        {%- generation -%}
            {{- message['content'] + eos_token -}}
        {%- endgeneration -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if messages -%}{{- '\\n\\n' -}}{%- endif -%}
    {{- '### Response:' -}}
{%- endif -%}
"""

# OpenAI's chat markup: each turn between two control tokens, its role on the first line.
CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}
            {{- message['content'] + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- message['content'] + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

BUILTIN = {"plain": PLAIN, "alpaca": ALPACA, "chatml": CHATML}

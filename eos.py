import json, pathlib, sys
from tokenizers import Tokenizer, models, decoders, processors, pre_tokenizers
from transformers import AutoTokenizer
import tempfile
d=pathlib.Path(tempfile.mkdtemp())
words=["<unk>","<s>","</s>","▁wing","▁flow"]
t=Tokenizer(models.BPE({w:i for i,w in enumerate(words+["▁","w","i","n","g","f","l","o","wi","win","wing","fl","flo","flow"])}, [("w","i"),("wi","n"),("win","g"),("▁","wing"),("f","l"),("fl","o"),("flo","w"),("▁","flow")],unk_token="<unk>"))
t.add_special_tokens(["<unk>","<s>","</s>"])
t.post_processor=processors.TemplateProcessing(single="<s> $A",pair="<s> $A <s> $B",special_tokens=[("<s>",1)])
t.save(str(d/"tokenizer.json"))
(d/"tokenizer_config.json").write_text(json.dumps({"tokenizer_class":"LlamaTokenizer","add_bos_token":True,"add_eos_token":True,"bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>"}))
(d/"config.json").write_text(json.dumps({"model_type":"mistral"}))
k=AutoTokenizer.from_pretrained(d)
print(type(k).__name__, k("wing flow").tokens(), getattr(k,"add_eos_token","-"))
k=AutoTokenizer.from_pretrained(d, add_eos_token=True)
print(type(k).__name__, k("wing flow").tokens(), getattr(k,"add_eos_token","-"))
from transformers import LlamaTokenizer
k=LlamaTokenizer.from_pretrained(d); print(k("wing flow").tokens())
(d/"config.json").unlink()
k=AutoTokenizer.from_pretrained(d)
print(type(k).__name__, k("wing flow").tokens(), getattr(k,"add_eos_token","-"))
k.save_pretrained(d/"s"); print((d/"s/tokenizer_config.json").read_text())

import torch
from transformers import BertConfig, BertModel
torch.manual_seed(0)
c=BertConfig(vocab_size=50,hidden_size=32,num_hidden_layers=2,num_attention_heads=4,intermediate_size=64,max_position_embeddings=32,initializer_range=.5)
c.is_causal=True
m=BertModel(c).eval()
a=torch.tensor([[2,5,6,7,3]])
b=torch.tensor([[2,5,6,7,3,0,0],[2,8,9,10,11,12,3]])
with torch.no_grad():
  alone=m(a,attention_mask=torch.ones_like(a)).last_hidden_state[0]
  batch=m(b,attention_mask=(b!=0).long()).last_hidden_state[0,:5]
  same=m(b[1:]).last_hidden_state[0]; 
  print((alone-batch).abs().max(), torch.cosine_similarity(alone.mean(0),batch.mean(0),0))

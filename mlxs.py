import mlx.core as mx, numpy as np
x=mx.zeros((1,512),dtype=mx.bfloat16)
print(mx.softmax(x,-1).astype(mx.float32).sum(), mx.softmax(x,-1,precise=True).astype(mx.float32).sum(), mx.softmax(mx.zeros((1,4096),dtype=mx.float16),-1).astype(mx.float32).sum())
mx.random.seed(0)
q=mx.random.normal((1,1,5,8));k=mx.random.normal((1,1,5,8));v=mx.random.normal((1,1,5,8))
m=mx.array([1,1,1,0,0])
f=lambda mask: mx.fast.scaled_dot_product_attention(q,k,v,scale=8**-.5,mask=mask)
i=f(m.reshape(1,1,1,5)); b=f(m.reshape(1,1,1,5)==1); add=f(m.reshape(1,1,1,5).astype(mx.float32)); n=f(None)
print(abs(i-b).max(),abs(i-add).max(), abs(i-n).max())
